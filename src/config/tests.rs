//! Tests of the layering, the checks and what is printed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::time::Duration;

use flowshift_proto::anomaly::Severity;

use proptest::prelude::*;

use flowshift_consumer::exchange::ShardCounts;

use super::*;
use crate::webhook::SubnetWish;

fn sources(file: &str, env: &[(&str, &str)], flags: &[(&str, &str, &str)]) -> Sources {
    Sources {
        file: (!file.is_empty()).then(|| (PathBuf::from("flowshift.toml"), file.to_owned())),
        env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        flags: flags.iter().map(|(flag, key, value)| Override::new(*flag, *key, *value)).collect(),
    }
}

fn loaded(file: &str, env: &[(&str, &str)], flags: &[(&str, &str, &str)]) -> Loaded {
    load(&Settings::default(), &sources(file, env, flags)).unwrap()
}

fn errors(file: &str, env: &[(&str, &str)], flags: &[(&str, &str, &str)]) -> String {
    load(&Settings::default(), &sources(file, env, flags)).unwrap_err().to_string()
}

const HOOK: &str = "[[webhooks]]\nurl = \"https://example.org/hook\"\nsecret_file = \"s\"\n";

#[test]
fn without_sources_the_defaults_stand() {
    let config = loaded("", &[("PATH", "/bin"), ("FLOWSHIFT_CONFIG", "x")], &[]).config;
    assert_eq!(config.streams.flows, "flowshift-flows");
    assert_eq!(config.tables.state, "flowshift-state");
    assert_eq!(config.lanes.get(), 64);
    assert_eq!(config.engine.batch_interval.get(), Duration::from_secs(5));
    assert!(config.collect.listen.ip().is_loopback() && config.admin.listen.ip().is_loopback());
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_defaults() {
    let file = "[job]\nname = \"file\"\nlanes = 8\n[detector]\nstep = \"10s\"\n";
    let env = [("FLOWSHIFT__JOB__NAME", "env"), ("FLOWSHIFT__JOB__LANES", "16")];
    let loaded = loaded(file, &env, &[("--job", "job.name", "flag")]);
    assert_eq!(loaded.config.job.as_str(), "flag");
    assert_eq!(loaded.config.lanes.get(), 16);
    assert_eq!(loaded.config.detector.step.get(), Duration::from_secs(10));
    assert_eq!(loaded.config.streams.exchange, "flag-exchange");
}

#[test]
fn an_unknown_key_is_reported_with_its_place_and_the_nearest_key() {
    let text =
        errors("[job]\nname = \"a\"\nlane = 8\n", &[("FLOWSHIFT__ENGIN__FAILOVER", "9s")], &[("-x", "nope.y", "1")]);
    assert!(text.contains("flowshift.toml:3: job.lane: unknown key; did you mean `job.lanes`?"), "{text}");
    assert!(text.contains("environment variable FLOWSHIFT__ENGIN__FAILOVER: engin.failover: unknown key"), "{text}");
    assert!(text.contains("did you mean `engine.failover`?"), "{text}");
    assert!(text.contains("flag -x: nope.y: unknown key; the sections are "), "{text}");
}

#[test]
fn a_bad_value_is_reported_with_its_place_and_the_value() {
    let file = "[engine]\nfailover = 10\n[input]\nformat = \"jsn\"\n[collect]\nlisten = \"here\"\n";
    let text = errors(file, &[("FLOWSHIFT__JOB__LANES", "many")], &[("--step", "detector.step", "soon")]);
    for part in [
        "flowshift.toml:2: engine.failover: invalid type: integer `10`, expected a duration with a unit",
        "flowshift.toml:4: input.format: unknown variant `jsn`",
        "flowshift.toml:6: collect.listen: ",
        "environment variable FLOWSHIFT__JOB__LANES: job.lanes: invalid type: string \"many\"",
        "flag --step: detector.step: invalid value: string \"soon\"",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn broken_toml_names_the_line() {
    assert!(
        errors("[job]\nname = \n", &[], &[]).starts_with("flowshift.toml:2: "),
        "{}",
        errors("[job]\nname = \n", &[], &[])
    );
}

#[test]
fn webhooks_can_be_set_by_any_layer() {
    let env = [("FLOWSHIFT__WEBHOOKS__0__TIMEOUT", "2s"), ("FLOWSHIFT__WEBHOOKS__1__URL", "http://127.0.0.1:9/x")];
    let loaded = loaded(HOOK, &env, &[("--webhook-secret-file", "webhooks.1.secret_file", "t")]);
    let [first, second] = loaded.config.webhooks.as_slice() else { panic!("two webhooks") };
    assert_eq!((first.name.as_str(), first.timeout), ("webhook-1", Duration::from_secs(2)));
    assert_eq!(first.secret, Some(SecretSource::File("s".into())));
    assert_eq!((second.url.as_str(), second.max_age), ("http://127.0.0.1:9/x", Duration::from_secs(86_400)));
}

#[test]
fn a_webhook_s_format_brings_its_address_and_pace_and_its_filter_is_read_from_any_layer() {
    let file = "[[webhooks]]\nformat = \"pagerduty\"\nsecret_file = \"k\"\nmin_severity = \"s2\"\n\
                [[webhooks]]\nformat = \"slack\"\nsecret_env = \"URL\"\nsubnets = [\"subnet-a\", \"10.0.0.0/8\"]\n\
                [[webhooks]]\nformat = \"alertmanager\"\nurl = \"http://127.0.0.1:9093/api/v2/alerts\"\nretry = [\"1s\"]\n";
    let env = [("FLOWSHIFT__WEBHOOKS__0__SIGNALS", "[\"latency\"]"), ("FLOWSHIFT__WEBHOOKS__2__AZS", "[\"use1-az1\"]")];
    let webhooks = loaded(file, &env, &[]).config.webhooks;
    let [pager, slack, alerts] = webhooks.as_slice() else { panic!("three webhooks") };
    assert_eq!(pager.url.as_str(), "https://events.pagerduty.com/v2/enqueue");
    assert_eq!((pager.filter.min_severity, pager.filter.signals.len()), (Some(Severity::S2), 1));
    assert_eq!((slack.min_interval, pager.min_interval), (Duration::from_secs(1), Duration::ZERO));
    let range = SubnetWish::Range("10.0.0.0/8".parse().unwrap());
    assert_eq!(slack.filter.subnets, [SubnetWish::Id("subnet-a".into()), range]);
    assert_eq!((&alerts.secret, alerts.retry.delay(3, 0.5)), (&None, Duration::from_secs(1)));
    assert!(alerts.filter.azs.contains("use1-az1"));
    assert!(errors("[[webhooks]]\nformat = \"teams\"\n", &[], &[]).contains("webhooks.0.format"));
}

#[test]
fn a_gap_in_a_list_is_an_error_not_a_guess() {
    assert!(errors("", &[("FLOWSHIFT__WEBHOOKS__1__URL", "http://a/")], &[]).contains("number the elements from 0"));
}

#[test]
fn durations_print_as_people_write_them_and_read_back() {
    for (span, text) in [
        (Span::secs(0), "0s"),
        (Span::millis(500), "500ms"),
        (Span::secs(60), "60s"),
        (Span::secs(65), "65s"),
        (Span::secs(900), "15m"),
        (Span::secs(86_400), "24h"),
        (Span::secs(86_401), "86401s"),
    ] {
        assert_eq!(span.to_string(), text);
        assert_eq!(serde_json::from_value::<Span>(text.into()).unwrap(), span);
    }
}

#[test]
fn a_start_is_a_word_or_a_time_and_is_printed_as_it_is_read() {
    let start = |text: &str| loaded(&format!("[input]\nstart_at = {text}\n"), &[], &[]).config.input.start_at;
    assert_eq!(start("\"trim_horizon\""), StartAt::TrimHorizon);
    assert_eq!(start("\"latest\""), StartAt::Latest);
    let eight = StartAt::Time(1_795_334_400_000);
    for text in ["\"2026-11-22T08:00:00Z\"", "\"2026-11-22T09:30:00+01:30\"", "2026-11-22T08:00:00Z"] {
        assert_eq!(start(text), eight, "{text}");
    }
    let milli = StartAt::Time(1_795_334_400_001);
    for (at, text) in
        [(eight, "2026-11-22T08:00:00Z"), (milli, "2026-11-22T08:00:00.001Z"), (StartAt::Latest, "latest")]
    {
        assert_eq!(at.to_string(), text);
        assert_eq!(text.parse(), Ok(at));
    }
    let set =
        loaded("", &[("FLOWSHIFT__INPUT__START_AT", "latest")], &[("-x", "input.start_at", "2026-11-22T08:00:00Z")]);
    assert_eq!(set.config.input.start_at, eight);
    assert_eq!(loaded(&show(&set), &[], &[]).config, set.config);
    assert_eq!(set.config.result_settings(), loaded("", &[], &[]).config.result_settings(), "it changes no batch");
}

#[test]
fn a_place_that_is_none_to_start_at_is_refused_with_its_line_and_what_to_write() {
    for text in [
        "\"LATEST\"",
        "\"yesterday\"",
        "\"2026-11-22\"",
        "\"1969-12-31T23:59:59Z\"",
        "2026-11-22",
        "1795334400",
        "true",
    ] {
        let refused = errors(&format!("[input]\nstart_at = {text}\n"), &[], &[]);
        assert!(refused.starts_with("flowshift.toml:2: input.start_at: "), "{refused}");
        assert!(refused.contains("`trim_horizon`, `latest` or an RFC 3339 time"), "{refused}");
    }
}

#[test]
fn an_empty_section_is_fine_if_known_and_an_empty_webhook_lacks_its_url() {
    loaded("[job]\n[engine]\n", &[], &[]);
    assert!(errors("[engin]\n", &[], &[]).starts_with("flowshift.toml:1: engin: unknown key"));
    assert!(errors("[[webhooks]]\n", &[], &[]).contains("webhooks.0.url: is missing"));
    assert!(
        errors("[[webhooks]]\nurl = \"http://a/\"\nsecret_env = \"S\"\n[[webhooks]]\n", &[], &[])
            .contains("webhooks.1.url")
    );
}

#[test]
fn an_environment_variable_in_two_spellings_cannot_race() {
    let text = errors("", &[("FLOWSHIFT__job__name", "a"), ("FLOWSHIFT__JOB__NAME", "b")], &[]);
    assert_eq!(text, "environment variable FLOWSHIFT__job__name: not in upper case; write FLOWSHIFT__JOB__NAME");
}

proptest! {
    #[test]
    fn anything_is_loaded_or_refused_with_a_reason(
        file in "(\\[{0,2}(job|webhooks|engine|x)\\]{0,2}\n)?([a-z_.]{0,9} ?= ?[\"\\[\\]{}a-z0-9_.]{0,9}\n){0,4}",
        env in prop::collection::vec(("(JOB|WEBHOOKS|ENGINE)(__[A-Z0-9]{0,4}){0,3}", "[ -~]{0,8}"), 0..3),
    ) {
        let env = env.into_iter().map(|(name, value)| (format!("FLOWSHIFT__{name}"), value)).collect();
        let sources = Sources { file: Some(("f".into(), file)), env, flags: Vec::new() };
        if let Err(problems) = load(&Settings::default(), &sources) {
            prop_assert!(!problems.0.is_empty() && problems.0.iter().all(|problem| !problem.what.is_empty()));
        }
    }
}

#[test]
fn cross_checks_name_both_keys() {
    for (file, part) in [
        ("[job]\nlanes = 0\n", "job.lanes: `0` is not in 1 to 256"),
        ("[job]\nlanes = 257\n", "job.lanes: `257`"),
        ("[job]\nname = \"a b\"\n", "job.name: `a b` is not a name"),
        ("[detector]\nwindow = \"65s\"\n", "detector.window: `65s` is not a multiple of `detector.pane` (10s)"),
        ("[detector]\nstep = \"30s\"\n", "detector.step: `30s` is no step"),
        ("[detector]\npane = \"20s\"\nstep = \"10s\"\n", "detector.step: `10s` is not a multiple"),
        ("[detector]\npane = \"0s\"\n", "detector.pane: `0s` is not"),
        ("[detector]\nfalse_alarms_per_1000_pair_days = nan\n", "`NaN` is not above 0"),
        ("[engine]\nrenewal = \"5s\"\n", "engine.renewal: `5s` is above a third of `engine.failover` (10s)"),
        ("[engine]\nstuck_after = \"10s\"\n", "engine.stuck_after: `10s` is not above `engine.idle_after`"),
        ("[engine]\nforeign_watch = \"9s\"\n", "engine.foreign_watch: `9s` is below `engine.failover` (10s)"),
        ("[engine]\npoll_interval = \"100ms\"\n", "more than five reads a second"),
        ("[streams]\nflows = \"x-x\"\nexchange = \"x-x\"\n", "streams.exchange: `x-x` is used twice"),
        ("[collect]\nmax_body_bytes = 1\n", "collect.max_body_bytes: `1`"),
        ("[aws]\nendpoint_url_kinesis = \"kinesis\"\n", "aws.endpoint_url_kinesis: `kinesis` is no endpoint"),
        ("[[webhooks]]\nurl = \"ftp://a/\"\nsecret_env = \"S\"\n", "webhooks.0.url: `ftp://a/` cannot be posted to"),
        ("[[webhooks]]\nurl = \"http://a/\"\n", "webhooks.0.secret_file: no signing secret"),
        ("[[webhooks]]\nsecret_env = \"S\"\n", "webhooks.0.url: is missing"),
        ("[[webhooks]]\nformat = \"pagerduty\"\n", "webhooks.0.secret_file: no routing key"),
        ("[[webhooks]]\nformat = \"slack\"\n", "webhooks.0.url: is missing"),
        (
            "[[webhooks]]\nformat = \"slack\"\nurl = \"http://a/\"\nsecret_env = \"S\"\n",
            "webhooks.0.url: is set beside a secret that holds it",
        ),
        (
            "[[webhooks]]\nurl = \"http://a/\"\nsecret_env = \"S\"\nretry = []\n",
            "webhooks.0.retry: schedule has no step",
        ),
        (
            "[[webhooks]]\nurl = \"http://a/\"\nsecret_env = \"S\"\nsubnets = [\"10.0.0.0/33\"]\n",
            "webhooks.0.subnets: `10.0.0.0/33` is neither a subnet's id nor a range",
        ),
        ("[[webhooks]]\nurl = \"http://a/\"\nsecret_env = \"S\"\nlink = \"x\"\n", "webhooks.0.link: is no http://"),
    ] {
        let text = errors(file, &[], &[]);
        assert!(text.contains(part), "{file}\n{part}\n{text}");
    }
}

#[test]
fn a_webhook_timeout_must_end_before_the_lease_can_pass_on() {
    let text = errors(&format!("{HOOK}timeout = \"7s\"\n"), &[], &[]);
    assert!(text.contains("flowshift.toml:4: webhooks.0.timeout: `7s` is not above 0 and at most 6s"), "{text}");
    assert_eq!(loaded(&format!("{HOOK}timeout = \"6s\"\n"), &[], &[]).config.webhooks.len(), 1);
}

#[test]
fn two_webhooks_of_one_name_are_refused() {
    let one = format!("{HOOK}name = \"ops\"\n");
    assert!(errors(&format!("{one}{one}"), &[], &[]).contains("webhooks.1.name: `ops` is used twice"));
}

#[test]
fn show_names_origins_and_loads_again() {
    let loaded =
        loaded("[job]\nlanes = 8\n", &[("FLOWSHIFT__AWS__REGION", "eu-west-1")], &[("--step", "detector.step", "10s")]);
    let text = show(&loaded);
    assert!(text.contains("lanes = 8  # flowshift.toml:2\n"), "{text}");
    assert!(text.contains("region = \"eu-west-1\"  # environment variable FLOWSHIFT__AWS__REGION\n"), "{text}");
    assert!(text.contains("step = \"10s\"  # flag --step\n"), "{text}");
    assert!(text.contains("name = \"flowshift\"\n"), "{text}");
    assert!(text.contains("exchange = \"flowshift-exchange\"\n"), "{text}");
    assert_eq!(self::loaded(&text, &[], &[]).config, loaded.config);
}

#[test]
fn show_prints_no_token() {
    let token = "T0123456789abcdefXYZ";
    let file =
        format!("[[webhooks]]\nurl = \"https://h.example/a/{token}?key={token}\"\nsecret_env = \"HOOK_SECRET\"\n");
    let read = loaded(&file, &[("HOOK_SECRET", "whsec_abc")], &[]);
    assert!(!format!("{read:?}").contains(token), "{read:?}");
    let text = show(&read);
    assert!(!text.contains(token) && !text.contains("whsec"), "{text}");
    assert!(text.contains("https://h.example/a/***?***") && text.contains("secret_env = \"HOOK_SECRET\""), "{text}");
    let no_url = format!("[[webhooks]]\nurl = \"h.example/{token}\"\nsecret_env = \"S\"\n");
    assert!(!errors(&no_url, &[], &[]).contains(token));
    let with_password = "[[webhooks]]\nurl = \"https://u:hunter2@h.example/\"\nsecret_env = \"S\"\n";
    assert!(!errors(with_password, &[], &[]).contains("hunter2"));
}

#[test]
fn the_example_documents_every_key_and_loads() {
    let text = example();
    loaded(&text, &[], &[]);
    for (key, manual) in keys::KnownKeys::read().iter() {
        assert!(!manual.is_empty(), "{key} has no manual");
        let last = key.to_string().rsplit('.').next().unwrap().to_owned();
        assert!(text.contains(&format!("# {last} =")), "{key}");
    }
}

#[test]
fn the_schema_describes_sections_and_defaults() {
    let schema = schema();
    assert_eq!(schema["properties"]["job"]["default"]["lanes"], 64);
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn a_narrow_exchange_stretches_the_batch_interval() {
    let config = loaded("", &[], &[]).config;
    let roomy = facts(&config, ShardCounts { input: 10, exchange: 1 });
    assert_eq!((roomy.batch_interval, roomy.exchange_shards_needed), (Duration::from_secs(5), 1));
    let narrow = facts(&config, ShardCounts { input: 100, exchange: 2 });
    assert_eq!((narrow.batch_interval, narrow.exchange_shards_needed), (Duration::from_secs(16), 7));
    assert!(narrow.warnings.iter().any(|warning| warning.contains("too narrow")));
    assert!((roomy.threshold_nats - (1_440_000_f64.ln() - 2.0)).abs() < 1e-9);
}

#[test]
fn listening_beyond_loopback_is_allowed_and_said() {
    let config = loaded("[collect]\nlisten = \"0.0.0.0:4318\"\n", &[], &[]).config;
    let warnings = facts(&config, ShardCounts { input: 1, exchange: 1 }).warnings;
    assert!(warnings.iter().any(|warning| warning.starts_with("collect.listen 0.0.0.0:4318")), "{warnings:?}");
}

#[test]
fn local_defaults_are_quick_and_valid() {
    let config = Config::local_defaults().unwrap();
    assert_eq!(config.engine.batch_interval.get(), Duration::from_secs(1));
    assert_eq!(config.engine.idle_after.get(), Duration::from_secs(5));
}

#[test]
fn only_what_changes_results_is_in_the_snapshot() {
    let base = loaded("", &[], &[]).config.result_settings();
    let listening = loaded("[admin]\nlisten = \"127.0.0.1:0\"\n[engine]\nidle_after = \"40s\"\n", &[], &[]);
    assert_eq!(base, listening.config.result_settings());
    assert_ne!(base, loaded("[detector]\nstep = \"10s\"\n", &[], &[]).config.result_settings());
}

#[test]
fn more_top_pairs_than_a_scrape_should_hold_are_refused() {
    assert_eq!(loaded("[admin]\ntop_pairs = 200\n", &[], &[]).config.admin.top_pairs, 200);
    let text = errors("[admin]\ntop_pairs = 201\n", &[], &[]);
    assert!(text.contains("flowshift.toml:2: admin.top_pairs: `201` is not in 0 to 200; each pair costs"), "{text}");
}

#[test]
fn the_admin_token_has_one_place_and_an_open_port_with_it_is_told() {
    let both = "[admin]\ntoken_file = \"token\"\ntoken_env = \"TOKEN\"\n";
    let text = errors(both, &[], &[]);
    assert!(
        text.contains("flowshift.toml:3: admin.token_env: is set beside `token_file`; keep one of the two"),
        "{text}"
    );
    let open = "[admin]\nlisten = \"0.0.0.0:9464\"\ntoken_env = \"TOKEN\"\n";
    let warnings = facts(&loaded(open, &[], &[]).config, ShardCounts { input: 1, exchange: 1 }).warnings;
    let told = "admin.listen 0.0.0.0:9464 is open to the network: it shows incidents to whoever asks, and tokens in clear text";
    assert!(warnings.iter().any(|warning| warning == told), "{warnings:?}");
}

/// The example without the marks before its keys is what stands when nothing is said.
#[test]
fn the_example_holds_the_defaults() {
    let mut seen = 0;
    let mut live = String::new();
    let text = example();
    // One webhook is shown; it has no URL to be posted to.
    for line in text.split("# [[webhooks]]").next().unwrap_or_default().lines() {
        let key = line.strip_prefix("# ").filter(|rest| {
            rest.split_once(" = ").is_some_and(|(key, value)| {
                key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit()) && !value.is_empty()
            })
        });
        seen += usize::from(key.is_some());
        live.push_str(key.unwrap_or(line));
        live.push('\n');
    }
    assert!(seen > 25, "{seen} keys with a default:\n{live}");
    assert_eq!(loaded(&live, &[], &[]).settings, Settings::default());
}

#[test]
fn settings_as_json_name_their_origins_and_no_token() {
    let token = "T0123456789abcdefXYZ";
    let file = format!("[job]\nlanes = 8\n[[webhooks]]\nurl = \"https://h.example/{token}\"\nsecret_env = \"S\"\n");
    let shown = show_json(&loaded(&file, &[], &[("--step", "detector.step", "10s")])).unwrap();
    assert_eq!(shown["settings"]["job"]["lanes"], 8);
    assert_eq!(shown["settings"]["streams"]["flows"], "flowshift-flows");
    assert_eq!(shown["origins"]["job.lanes"], "flowshift.toml:2");
    assert_eq!(shown["origins"]["detector.step"], "flag --step");
    assert_eq!(shown["origins"]["webhooks.0.url"], "flowshift.toml:4");
    assert!(!shown.to_string().contains(token), "{shown}");
}
