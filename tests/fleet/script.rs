//! What happens to a fleet, by a seed: deaths, farewells, zombies, resharding, bad weather, always with workers left.
//!
//! Every kind of event happens at least once; their order, victims and moments come from the seed. A worker that is
//! gone comes back as a new one in its slot.

use std::time::Duration;

use flowshift_kinesis_emulator::{FailedRecords, FaultKind, FaultRule};

use crate::aws::Aws;
use crate::chance::Chance;
use crate::proxy::Weather;
use crate::workers::{FAILOVER, Job, Worker};

/// Stages of each slot: two run all, two share.
const ROLES: [&str; 4] = ["all", "aggregate", "detect", "all"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// kill -9, back after a while.
    Kill,
    /// SIGTERM, back after a while.
    Leave,
    /// SIGSTOP for longer than a lease lives, then SIGCONT.
    Zombie,
    Split(&'static str),
    Merge(&'static str),
    Scale(&'static str),
    /// DynamoDB throttles, fails and loses answers.
    DynamoStorm,
    /// So does Kinesis, and iterators expire.
    KinesisStorm,
}

const EVENTS: [Event; 16] = [
    Event::Kill,
    Event::Kill,
    Event::Kill,
    Event::Leave,
    Event::Leave,
    Event::Zombie,
    Event::Zombie,
    Event::Split("flows"),
    Event::Split("exchange"),
    Event::Merge("flows"),
    Event::Merge("exchange"),
    Event::Scale("flows"),
    Event::Scale("exchange"),
    Event::DynamoStorm,
    Event::DynamoStorm,
    Event::KinesisStorm,
];

/// A fleet under its script.
#[derive(Debug)]
pub(crate) struct Fleet<'a> {
    aws: &'a Aws,
    job: &'a Job,
    chance: Chance,
    workers: [Option<Worker>; 4],
    /// Slots still to be struck in this round: nobody is spared.
    victims: Vec<usize>,
    /// What each process printed, in the order in which the processes ended.
    printed: Vec<Vec<String>>,
    /// Processes that ended by themselves, which none may.
    deserted: Vec<String>,
}

impl<'a> Fleet<'a> {
    /// Starts all four.
    pub(crate) fn start(aws: &'a Aws, job: &'a Job, seed: u64) -> Self {
        let workers = std::array::from_fn(|slot| Some(launch(job, slot)));
        let chance = Chance::new(seed, 2);
        Self { aws, job, chance, workers, victims: Vec::new(), printed: Vec::new(), deserted: Vec::new() }
    }

    /// Plays the whole script once.
    pub(crate) fn play(&mut self) {
        let mut events = EVENTS;
        self.chance.shuffle(&mut events);
        for event in events {
            self.background();
            let pause = Duration::from_millis(1_000 + self.chance.below(2_500) as u64);
            std::thread::sleep(pause);
            self.look();
            self.strike(event);
        }
        self.background();
    }

    /// A little of everything, always.
    fn background(&self) {
        let cut = |operation| FaultRule::new(FaultKind::CutAfterApply).on(operation).chance(0.01);
        let rules = vec![cut("PutRecords"), cut("GetRecords"), cut("ListShards")];
        self.aws.weather(rules, Weather { throttled: 0.01, failed: 0.01, cut: 0.01 });
    }

    fn strike(&mut self, event: Event) {
        match event {
            Event::Kill => {
                let slot = self.victim();
                let worker = self.workers[slot].take().unwrap();
                let printed = worker.kill();
                self.printed.push(printed);
                self.back(slot, "killed");
            }
            Event::Leave => {
                let slot = self.victim();
                let (printed, took) = self.workers[slot].take().unwrap().leave();
                self.printed.push(printed);
                self.back(slot, &format!("left in {took:?}"));
            }
            Event::Zombie => {
                let slot = self.victim();
                let worker = self.workers[slot].as_ref().unwrap();
                worker.signal("STOP");
                let asleep = FAILOVER + Duration::from_millis(2_000 + self.chance.below(2_000) as u64);
                std::thread::sleep(asleep);
                worker.signal("CONT");
                eprintln!("worker {slot} slept {asleep:?}");
            }
            Event::Split(stream) => {
                let stream = self.job.stream(stream);
                eprintln!("{}", self.aws.split(&stream, &mut self.chance));
            }
            Event::Merge(stream) => {
                let stream = self.job.stream(stream);
                eprintln!("{}", self.aws.merge(&stream, &mut self.chance));
            }
            Event::Scale(stream) => {
                let stream = self.job.stream(stream);
                let now = self.aws.open(&stream).len();
                let target = if self.chance.below(2) == 0 { now + now / 2 } else { now - now / 4 };
                eprintln!("{}", self.aws.scale(&stream, target.max(2)));
            }
            Event::DynamoStorm => {
                self.aws.weather(Vec::new(), Weather { throttled: 0.3, failed: 0.1, cut: 0.1 });
                eprintln!("DynamoDB storms");
                std::thread::sleep(Duration::from_millis(2_500));
            }
            Event::KinesisStorm => {
                let rule = |kind| FaultRule::new(kind).chance(0.1);
                let error = FaultKind::Status { status: 500, error_type: "InternalFailure".into() };
                let rules = vec![
                    rule(FaultKind::CutAfterApply),
                    rule(error),
                    rule(FaultKind::ExpireIterator).on("GetRecords"),
                    rule(FaultKind::Throttle).on("GetRecords"),
                    rule(FaultKind::PartialFailure(FailedRecords::Fraction(0.3))).on("PutRecords").chance(0.5),
                ];
                self.aws.weather(rules, Weather::default());
                eprintln!("Kinesis storms");
                std::thread::sleep(Duration::from_millis(2_500));
            }
        }
    }

    fn victim(&mut self) -> usize {
        if self.victims.is_empty() {
            self.victims = (0..self.workers.len()).collect();
            self.chance.shuffle(&mut self.victims);
        }
        self.victims.pop().unwrap()
    }

    /// The slot's next process, after a while without.
    fn back(&mut self, slot: usize, how: &str) {
        let away = Duration::from_millis(self.chance.below(3_000) as u64);
        eprintln!("worker {slot} ({}) {how}, back in {away:?}", ROLES[slot]);
        std::thread::sleep(away);
        self.workers[slot] = Some(launch(self.job, slot));
    }

    /// Nobody may have ended without being asked.
    fn look(&mut self) {
        for slot in 0..self.workers.len() {
            let Some(status) = self.workers[slot].as_mut().unwrap().gone() else { continue };
            self.deserted.push(format!("worker {slot} ended by itself: {status}"));
            let printed = self.workers[slot].take().unwrap().kill();
            self.printed.push(printed);
            self.workers[slot] = Some(launch(self.job, slot));
        }
    }

    /// The weather clears, a last worker joins, the others leave to it, and it ends the input. What each process
    /// printed, in the order of their ends.
    pub(crate) fn drain(mut self, patience: Duration) -> Vec<Vec<String>> {
        self.look();
        self.aws.weather(Vec::new(), Weather::default());
        let last = self.job.start("last", "all", &["--drain"]);
        for worker in self.workers.iter_mut().filter_map(Option::take) {
            self.printed.push(worker.leave().0);
        }
        last.signal("TERM");
        self.printed.push(last.ended(patience).0);
        assert!(self.deserted.is_empty(), "{:?}", self.deserted);
        self.printed
    }
}

fn launch(job: &Job, slot: usize) -> Worker {
    job.start(&format!("worker-{slot}"), ROLES[slot], &[])
}
