//! The same log through another number of workers and exchange shards, with deaths and resharding on the way.
//!
//! Not the whole script of `script`: no weather, no zombies; the number of processes and shards is what changes here. An
//! operator's word stands before all evidence, so every run hears it at the same place.

use std::time::Duration;

use flowshift::convert::word;
use flowshift_detector::{Order, Scope, Signal, Word};

use crate::DRAIN;
use crate::aws::Aws;
use crate::chance::Chance;
use crate::input::Input;
use crate::judge::Outcome;
use crate::producer::Producer;
use crate::support::kinesis;
use crate::workers::Job;

/// What happens on the way, between pauses.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// kill -9 of any worker, and a new one in its place.
    Kill,
    Split(&'static str),
    Merge(&'static str),
}

const EVENTS: [Event; 7] = [
    Event::Kill,
    Event::Split("exchange"),
    Event::Kill,
    Event::Split("flows"),
    Event::Merge("exchange"),
    Event::Kill,
    Event::Merge("flows"),
];

/// A week after the simulated traffic begins.
const MUTED_UNTIL_S: i64 = 1_767_225_600 + 7 * 86_400;

/// Plays the input through this many workers.
pub(crate) fn play(aws: &Aws, job: &Job, input: &Input, workers: usize, seed: u64) -> Outcome {
    let order = Order::Mute { scope: Scope { place: None, signal: Some(Signal::Retransmit) }, until_s: MUTED_UNTIL_S };
    let mute = Word { said_s: MUTED_UNTIL_S - 8 * 86_400, by: "ada".into(), note: String::new(), order };
    kinesis::put(&aws.kinesis, &job.stream("evidence"), "operator", &[&word::encode(&mute)]);
    let mut chance = Chance::new(seed, workers as u64);
    let start = |slot: usize| job.start(&format!("worker-{slot}"), "all", &[]);
    let mut fleet: Vec<_> = (0..workers).map(start).collect();
    let producer = Producer::start(&aws.kinesis, &job.stream("flows"), &input.flows, Duration::from_secs(30));
    let mut printed = Vec::new();
    for event in EVENTS {
        std::thread::sleep(Duration::from_millis(2_000 + chance.below(2_000) as u64));
        match event {
            Event::Kill => {
                let slot = chance.below(workers);
                let killed = std::mem::replace(&mut fleet[slot], start(slot));
                printed.push(killed.kill());
                eprintln!("{workers} workers: {slot} killed");
            }
            Event::Split(stream) => eprintln!("{}", aws.split(&job.stream(stream), &mut chance)),
            Event::Merge(stream) => eprintln!("{}", aws.merge(&job.stream(stream), &mut chance)),
        }
    }
    producer.finish();
    let last = job.start("last", "all", &["--drain"]);
    printed.extend(fleet.into_iter().map(|worker| worker.leave().0));
    last.signal("TERM");
    printed.push(last.ended(DRAIN).0);
    Outcome { export: job.export(), printed }
}
