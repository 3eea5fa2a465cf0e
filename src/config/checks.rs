//! The checks that need more than one key, or more than a type can say.
//!
//! Each check adds to the list and goes on, so that one run reports everything. Invariant: nothing is corrected here,
//! a value is taken as written or refused.

use std::collections::BTreeSet;
use std::time::Duration;

use super::checked::name_is_valid;
use super::layer::Origins;
use super::settings::{AdminSettings, AwsSettings, CollectSettings, DetectorSettings, EngineSettings};
use super::webhook::masked_url;
use super::{InputSettings, Problem, Settings, Span, Webhook};

/// Collects what the checks find.
pub(super) struct Checks<'a> {
    pub(super) origins: &'a Origins,
    pub(super) problems: Vec<Problem>,
}

impl Checks<'_> {
    fn fail(&mut self, key: &str, what: String, fix: &str) {
        self.problems.push(Problem::new(key, self.origins.of(key), what, fix));
    }

    pub(super) fn job(&mut self, settings: &Settings) {
        let name = &settings.job.name;
        if !name_is_valid(name) {
            self.fail("job.name", format!("`{name}` is not a name"), "use 1 to 64 letters, digits, `_`, `.` or `-`");
        }
        let lanes = settings.job.lanes;
        if !(1..=256).contains(&lanes) {
            self.fail("job.lanes", format!("`{lanes}` is not in 1 to 256"), "64 fits most jobs");
        }
    }

    pub(super) fn engine(&mut self, engine: &EngineSettings) {
        let spans = [
            ("engine.batch_interval", engine.batch_interval),
            ("engine.commit_interval", engine.commit_interval),
            ("engine.failover", engine.failover),
            ("engine.renewal", engine.renewal),
            ("engine.idle_after", engine.idle_after),
            ("engine.stuck_after", engine.stuck_after),
            ("engine.leader_lock", engine.leader_lock),
            ("engine.leader_beat", engine.leader_beat),
            ("engine.assign_interval", engine.assign_interval),
            ("engine.discovery", engine.discovery),
            ("engine.poll_interval", engine.poll_interval),
            ("engine.foreign_watch", engine.foreign_watch),
        ];
        for (key, span) in spans {
            self.at_least(key, span, Span::millis(50));
        }
        self.at_most_a_third("engine.renewal", engine.renewal, "engine.failover", engine.failover);
        self.at_most_a_third("engine.leader_beat", engine.leader_beat, "engine.leader_lock", engine.leader_lock);
        if engine.stuck_after <= engine.idle_after {
            let what = format!("`{}` is not above `engine.idle_after` ({})", engine.stuck_after, engine.idle_after);
            self.fail("engine.stuck_after", what, "raise it: a stuck source is set aside, an idle one only waits");
        }
        if engine.foreign_watch < engine.failover {
            let what = format!("`{}` is below `engine.failover` ({})", engine.foreign_watch, engine.failover);
            self.fail(
                "engine.foreign_watch",
                what,
                "raise it: a worker that renews as rarely as ours would not be seen",
            );
        }
        if engine.poll_interval < Span::millis(200) {
            let what = format!("`{}` is more than five reads a second", engine.poll_interval);
            self.fail("engine.poll_interval", what, "use \"200ms\" or more: the limit of a shard");
        }
    }

    /// A beat must fit three times into what it keeps alive, so that one lost beat costs nothing.
    fn at_most_a_third(&mut self, beat_key: &str, beat: Span, whole_key: &str, whole: Span) {
        if beat.get().saturating_mul(3) > whole.get() {
            let what = format!("`{beat}` is above a third of `{whole_key}` ({whole})");
            self.fail(beat_key, what, &format!("lower it or raise `{whole_key}`"));
        }
    }

    fn at_least(&mut self, key: &str, span: Span, least: Span) {
        if span < least {
            self.fail(key, format!("`{span}` is below {least}"), "use a longer time");
        }
    }

    pub(super) fn detector(&mut self, detector: &DetectorSettings) {
        let (pane, window, step) = (detector.pane.get(), detector.window.get(), detector.step.get());
        if pane.as_secs() == 0 || pane.subsec_nanos() != 0 || 60 % pane.as_secs().max(1) != 0 {
            let what = format!("`{}` is not a whole number of seconds that divides a minute", detector.pane);
            self.fail("detector.pane", what, "use \"10s\"");
            return;
        }
        if step != Duration::from_secs(60) && step != Duration::from_secs(10) {
            self.fail("detector.step", format!("`{}` is no step", detector.step), "use \"60s\" or \"10s\"");
        }
        for (key, span, whole) in [("detector.window", detector.window, window), ("detector.step", detector.step, step)]
        {
            if whole.is_zero() || whole.subsec_nanos() != 0 || whole.as_secs() % pane.as_secs() != 0 {
                let what = format!("`{span}` is not a multiple of `detector.pane` ({})", detector.pane);
                self.fail(key, what, "use a multiple of the pane");
            }
        }
        let alarms = detector.false_alarms_per_1000_pair_days;
        if !(alarms > 0.0 && alarms <= 1000.0) {
            let what = format!("`{alarms}` is not above 0 and at most 1000");
            self.fail("detector.false_alarms_per_1000_pair_days", what, "1.0 is the default");
        }
    }

    pub(super) fn input(&mut self, input: &InputSettings) {
        if let Some(name) = &input.consumer {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
            if !(1..=128).contains(&name.len()) || !name.bytes().all(fits) {
                let what = format!("`{name}` is not a name");
                self.fail("input.consumer", what, "use 1 to 128 letters, digits, `_`, `.` or `-`");
            }
        }
        self.at_least("input.agent_interval", input.agent_interval, Span::secs(1));
        if input.lateness_flow_logs < input.lateness_reports {
            let what = format!("`{}` is below `input.lateness_reports`", input.lateness_flow_logs);
            self.fail("input.lateness_flow_logs", what, "flow logs come minutes late: use \"15m\"");
        }
        let longest = Span::secs(24 * 3600);
        for (key, span) in [
            ("input.agent_interval", input.agent_interval),
            ("input.lateness_reports", input.lateness_reports),
            ("input.lateness_flow_logs", input.lateness_flow_logs),
            ("input.future_tolerance", input.future_tolerance),
        ] {
            if span > longest {
                self.fail(key, format!("`{span}` is above {longest}"), "use a shorter time");
            }
        }
    }

    pub(super) fn collect(&mut self, collect: &CollectSettings) {
        let (body, inflated) = (collect.max_body_bytes, collect.max_inflated_bytes);
        if !(1 << 10..=64 << 20).contains(&body) {
            self.fail(
                "collect.max_body_bytes",
                format!("`{body}` is not in 1 KiB to 64 MiB"),
                "4194304 is the default",
            );
        }
        if inflated < body || inflated > 256 << 20 {
            let what = format!("`{inflated}` is not between `collect.max_body_bytes` ({body}) and 256 MiB");
            self.fail("collect.max_inflated_bytes", what, "33554432 is the default");
        }
    }

    pub(super) fn admin(&mut self, admin: &AdminSettings) {
        if admin.token_file.is_some() && admin.token_env.is_some() {
            self.fail("admin.token_env", "is set beside `token_file`".to_owned(), "keep one of the two");
        }
        let most = crate::metrics::pairs::MOST;
        if usize::from(admin.top_pairs) > most {
            let what = format!("`{}` is not in 0 to {most}", admin.top_pairs);
            self.fail("admin.top_pairs", what, "each pair costs seven series in each process; 20 fit a dashboard");
        }
    }

    pub(super) fn endpoints(&mut self, aws: &AwsSettings) {
        for (key, url) in [
            ("aws.endpoint_url_kinesis", &aws.endpoint_url_kinesis),
            ("aws.endpoint_url_dynamodb", &aws.endpoint_url_dynamodb),
        ] {
            let Some(url) = url else { continue };
            let endpoint = |url: &reqwest::Url| matches!(url.scheme(), "http" | "https") && url.password().is_none();
            if !reqwest::Url::parse(url).is_ok_and(|url| endpoint(&url)) {
                let what = format!("`{}` is no endpoint", masked_url(url));
                self.fail(key, what, "use an http:// or https:// URL without credentials");
            }
        }
    }

    /// Names that are sent to AWS: valid and all different.
    pub(super) fn names<const N: usize>(&mut self, section: &str, names: [&String; N], keys: [&str; N]) {
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        for (name, key) in names.into_iter().zip(keys) {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
            let key = format!("{section}.{key}");
            if !(3..=128).contains(&name.len()) || !name.bytes().all(fits) {
                self.fail(&key, format!("`{name}` is not a name"), "use 3 to 128 letters, digits, `_`, `.` or `-`");
            } else if !seen.insert(name) {
                self.fail(&key, format!("`{name}` is used twice"), "give each its own name");
            }
        }
    }

    pub(super) fn webhooks(&mut self, settings: &Settings) -> Vec<Webhook> {
        let engine = &settings.engine;
        let longest = engine.failover.get().saturating_sub(engine.renewal.get()).saturating_sub(Duration::from_secs(1));
        let mut webhooks: Vec<Webhook> = Vec::new();
        for (index, raw) in settings.webhooks.iter().enumerate() {
            let Some(webhook) =
                Webhook::check(index, &settings.job.name, raw, longest, self.origins, &mut self.problems)
            else {
                continue;
            };
            if webhooks.iter().any(|other| other.name == webhook.name) {
                let key = format!("webhooks.{index}.name");
                self.fail(&key, format!("`{}` is used twice", webhook.name), "give each its own name");
            }
            webhooks.push(webhook);
        }
        webhooks
    }
}
