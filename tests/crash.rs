//! The run over the real capture with the process killed in its middle: the same sums, the same incidents byte for byte, and
//! webhooks repeated at most under the same ids, whatever the moment.
//!
//! Each run sends every body twice, a body again when its connection broke, and starts the program again on the same data.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use support::capture::{self, Post};
use support::http::post_unanswered;
use support::oracle::{Records, exported};
use support::program::Program;
use support::receiver::Receiver;
use support::site::Site;
use support::tools;

/// Short engine times make many batches, cuts and commits out of a small input, and short leases a quick return.
const SETTINGS: &str = "[engine]
batch_interval = \"100ms\"
poll_interval = \"200ms\"
commit_interval = \"500ms\"
failover = \"4s\"
renewal = \"1s\"
leader_lock = \"3s\"
leader_beat = \"1s\"
";

/// Every named fail point, with how often the short form lets it pass first.
const FAIL_POINTS: [(&str, u32); 10] = [
    ("map::after_chunks", 2),
    ("map::after_cut", 2),
    ("map::mid_emit", 2),
    ("map::after_emit", 2),
    ("map::after_settle", 1),
    ("stage::after_outputs", 3),
    ("stage::after_chunks", 2),
    ("stage::after_commit", 2),
    ("collect::before_ack", 20),
    ("webhook::before_done", 1),
];

/// When a kill -9 comes.
#[derive(Debug, Clone, Copy)]
enum Kill {
    /// After this many POSTs and a pause.
    After(usize, Duration),
    /// While this POST is on its way: sent, not answered.
    During(usize),
    /// This long after SIGTERM ended the input.
    Draining(Duration),
}

/// What a run leaves.
#[derive(Debug)]
struct Outcome {
    /// Event lines in order, each once.
    log: Vec<String>,
    export: Value,
    /// Webhook bodies by id.
    webhooks: BTreeMap<String, String>,
    /// How often the process went down.
    crashes: usize,
}

struct Run {
    site: Site,
    receiver: Option<Receiver>,
    program: Option<Program>,
    lines: Vec<String>,
    crashes: usize,
}

impl Run {
    fn start(fail_points: Option<&str>) -> Self {
        let mut site = Site::two_subnets().with_settings(SETTINGS);
        let receiver = tools::python_with_webhooks()
            .map(|python| Receiver::start(&python, site.path("received.jsonl"), &site.secret_file()));
        if let Some(receiver) = &receiver {
            let (url, secret) = (&receiver.url, site.secret_file());
            let toml = format!("[[webhooks]]\nurl = \"{url}\"\nsecret_file = {secret:?}\ntimeout = \"2s\"\n");
            site = site.with_settings(&toml);
        }
        let mut run = Self { site, receiver, program: None, lines: Vec::new(), crashes: 0 };
        // A fail point may strike before the first line; then it goes on without.
        match run.site.try_start(fail_points) {
            Ok(program) => run.program = Some(program),
            Err(_) if fail_points.is_some() => run.restart(),
            Err(error) => panic!("{error:?}"),
        }
        run
    }

    fn program(&self) -> &Program {
        self.program.as_ref().unwrap()
    }

    fn restart(&mut self) {
        self.crashes += 1;
        self.program = Some(self.site.start());
    }

    /// Takes the lines of a process that has died, and starts the next.
    fn fell(&mut self) {
        let ended = self.program.take().unwrap().ended();
        assert!(!ended.status.success(), "it left by itself");
        self.lines.extend(ended.lines);
        self.restart();
    }

    fn kill(&mut self) {
        self.lines.extend(self.program.take().unwrap().kill().lines);
        self.restart();
    }

    /// Sends until it is answered 200, over any number of deaths.
    fn send(&mut self, post: &Post) {
        loop {
            match post.send(self.program()) {
                Ok(answer) if answer.status == 200 => return,
                Ok(answer) if [429, 503].contains(&answer.status) => {
                    let pause = answer.retry_after.unwrap_or_else(|| panic!("no Retry-After: {answer:?}"));
                    std::thread::sleep(Duration::from_secs(pause));
                }
                Ok(answer) => panic!("{answer:?}"),
                Err(_) => self.fell(),
            }
        }
    }

    /// Ends the input until it ends well.
    fn finish(mut self, mut kills: impl Iterator<Item = Duration>) -> Outcome {
        loop {
            self.program().terminate();
            if let Some(pause) = kills.next() {
                std::thread::sleep(pause);
                let ended = self.program.take().unwrap().kill();
                self.lines.extend(ended.lines);
                if ended.status.success() {
                    break;
                }
                self.restart();
                continue;
            }
            let ended = self.program.take().unwrap().ended();
            self.lines.extend(ended.lines);
            if ended.status.success() {
                break;
            }
            self.restart();
        }
        let export = self.site.export();
        let webhooks = self.receiver.as_ref().map(webhooks).unwrap_or_default();
        Outcome { log: each_once(&self.lines), export, webhooks, crashes: self.crashes }
    }
}

/// Lines by (incident, sequence), the first of each; a repetition must be the same bytes.
fn each_once(lines: &[String]) -> Vec<String> {
    let mut seen: BTreeMap<(String, u64), &String> = BTreeMap::new();
    let mut log = Vec::new();
    for line in lines {
        let event: Value = serde_json::from_str(line).unwrap();
        let key = (event["incident"].as_str().unwrap().to_owned(), event["sequence"].as_u64().unwrap());
        match seen.get(&key) {
            Some(before) => assert_eq!(*before, line, "two events under {key:?}"),
            None => {
                seen.insert(key, line);
                log.push(line.clone());
            }
        }
    }
    log
}

fn webhooks(receiver: &Receiver) -> BTreeMap<String, String> {
    let mut by_id = BTreeMap::new();
    for request in receiver.received() {
        assert!(request.verified, "{:?}", request.problem);
        if let Some(before) = by_id.insert(request.id.clone(), request.body.clone()) {
            assert_eq!(before, request.body, "two bodies under the id {}", request.id);
        }
    }
    by_id
}

/// The run without any crash and without repetitions.
fn undisturbed() -> &'static Outcome {
    static OUTCOME: OnceLock<Outcome> = OnceLock::new();
    OUTCOME.get_or_init(|| {
        let run = Run::start(None);
        capture::send_all(run.program());
        let outcome = run.finish(std::iter::empty());
        assert!(!outcome.log.is_empty(), "no incident at all");
        assert!(Records::of(&outcome.export).refused().is_empty());
        outcome
    })
}

fn compare(what: &str, outcome: &Outcome) {
    let expected = undisturbed();
    assert_eq!(exported(&outcome.export), exported(&expected.export), "{what}: sums per pair");
    let (records, undisturbed) = (Records::of(&outcome.export), Records::of(&expected.export));
    assert_eq!(records.accounted, undisturbed.accounted, "{what}: records accounted");
    // Everything came twice or more, and nothing but repetitions was refused.
    assert_eq!(records.refused().into_keys().collect::<Vec<_>>(), ["duplicate"], "{what}: {records:?}");
    assert!(records.reasons["duplicate"] >= records.accounted, "{what}: {records:?}");
    assert_eq!(outcome.log, expected.log, "{what}: incident log");
    let told = |outcome: &Outcome| {
        let opened = |body: &&String| body.contains("anomaly.opened") || body.contains("anomaly.resolved");
        outcome.webhooks.values().filter(opened).cloned().collect::<Vec<_>>()
    };
    assert_eq!(told(outcome), told(expected), "{what}: webhooks of openings and ends");
}

fn at_fail_point(name: &str, passes: u32) {
    let action = if passes == 0 { "return".to_owned() } else { format!("{passes}*off->return") };
    let what = format!("{name}={action}");
    let mut run = Run::start(Some(&what));
    for post in capture::posts() {
        run.send(&post);
        run.send(&post);
    }
    let outcome = run.finish(std::iter::empty());
    assert_eq!(outcome.crashes, 1, "{what} did not strike once");
    compare(&what, &outcome);
}

fn at_random_moments(seed: u64) {
    let posts = capture::posts();
    let mut random = SplitMix(seed);
    let total = posts.len() * 2;
    let mut kills: Vec<Kill> = Vec::new();
    for _ in 0..4 {
        kills.push(Kill::After(random.below(total), Duration::from_millis(random.below(1_500) as u64)));
        kills.push(Kill::During(random.below(total)));
    }
    for _ in 0..2 {
        kills.push(Kill::Draining(Duration::from_millis(random.below(2_000) as u64)));
    }
    let what = format!("seed {seed}: {kills:?}");
    let mut run = Run::start(None);
    for (number, post) in posts.iter().flat_map(|post| [post, post]).enumerate() {
        for kill in &kills {
            match kill {
                Kill::During(at) if *at == number => {
                    let program = run.program();
                    let sent = post_unanswered(&program.collect, &post.path, &post.headers(), &post.body);
                    run.kill();
                    drop(sent);
                }
                _ => {}
            }
        }
        run.send(post);
        for kill in &kills {
            match kill {
                Kill::After(at, pause) if *at == number => {
                    // The pause only moves the moment: nothing waits for it.
                    std::thread::sleep(*pause);
                    run.kill();
                }
                _ => {}
            }
        }
    }
    let draining: Vec<Duration> =
        kills.iter().filter_map(|kill| if let Kill::Draining(pause) = kill { Some(*pause) } else { None }).collect();
    let outcome = run.finish(draining.into_iter());
    assert!(outcome.crashes >= 8, "{what}: {} crashes", outcome.crashes);
    compare(&what, &outcome);
}

/// SplitMix64: a fixed seed gives the same moments.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).unwrap()
    }
}

#[test]
fn a_crash_while_mapping_a_batch_changes_nothing() {
    FAIL_POINTS
        .iter()
        .filter(|(name, _)| name.starts_with("map::"))
        .for_each(|(name, passes)| at_fail_point(name, *passes));
}

#[test]
fn a_crash_while_committing_a_stage_changes_nothing() {
    let stage = |name: &str| name.starts_with("stage::");
    FAIL_POINTS.iter().filter(|(name, _)| stage(name)).for_each(|(name, passes)| at_fail_point(name, *passes));
}

#[test]
fn a_crash_before_an_answer_or_a_delivery_is_noted_changes_nothing() {
    if tools::python_with_webhooks().is_none() {
        tools::skip("crash", "webhook::before_done not reached: no Python with the package standardwebhooks");
    }
    for (name, passes) in FAIL_POINTS {
        let reached = !name.starts_with("webhook::") || tools::python_with_webhooks().is_some();
        if reached && (name.starts_with("collect::") || name.starts_with("webhook::")) {
            at_fail_point(name, passes);
        }
    }
}

#[test]
fn ten_kills_at_random_moments_change_nothing() {
    at_random_moments(1);
}

#[test]
fn every_fail_point_at_every_earlier_count_and_many_random_moments_change_nothing() {
    if !tools::long() {
        return tools::skip(
            "crash",
            "fail points at earlier counts and more random moments: only with tests/run --long",
        );
    }
    for (name, passes) in FAIL_POINTS {
        for count in 0..passes {
            at_fail_point(name, count);
        }
    }
    for seed in 2..12 {
        at_random_moments(seed);
    }
}
