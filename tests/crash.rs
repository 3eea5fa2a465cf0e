//! The run over the real capture with the process killed in its middle: the same sums, the same incidents byte for byte, and
//! webhooks repeated at most under the same ids, whatever the moment.
//!
//! Each run sends every body twice, a body again when its connection broke, and starts the program again on the same data.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use support::disturbed::{Outcome, Run};
use support::http::post_unanswered;
use support::oracle::{Records, exported};
use support::{capture, tools};

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
    // Updates that wait behind each other may collapse; openings and ends may not, and keep their ids.
    let told = |outcome: &Outcome| {
        let kept = |body: &str| body.contains("anomaly.opened") || body.contains("anomaly.resolved");
        outcome.webhooks.clone().into_iter().filter(|(_, body)| kept(body)).collect::<BTreeMap<_, _>>()
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
