//! Faults on demand: rules that make operations slow, fail, throttle, expire or lose their answer.
//!
//! Rules are set in process ([`Faults`]) or by `POST /_faults` with `{"seed": 7, "rules": [RULE, ..]}` (both
//! optional); `GET` lists them with their counts, `DELETE` removes all. A rule in JSON is, for example,
//! `{"operation": "GetRecords", "times": 3, "kind": {"latency": {"ms": 200}}}`. Every latency that applies is added
//! up; of the other kinds the first rule that applies decides. The same seed and the same calls give the same faults.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{api, error::ApiError, sync::lock};

/// What a rule does to a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// Waits this many milliseconds before the call, at most one hour.
    Latency {
        /// Milliseconds.
        ms: u64,
    },
    /// Answers with this status and exception and does nothing.
    Status {
        /// HTTP status, 400 to 599.
        status: u16,
        /// Exception name, such as `InternalFailure`.
        error_type: String,
    },
    /// Answers `ProvisionedThroughputExceededException` (400) and does nothing.
    Throttle,
    /// `GetRecords` only: answers `ExpiredIteratorException`.
    ExpireIterator,
    /// Does what was asked, then drops the connection without an answer.
    CutAfterApply,
    /// `PutRecords` only: refuses some records as throttled and stores the rest.
    PartialFailure(FailedRecords),
}

/// Which records of a `PutRecords` fail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailedRecords {
    /// Those at these places in the request, from 0.
    Indices(Vec<usize>),
    /// Each with this probability, 0 to 1, by the seed.
    Fraction(f64),
}

/// When a fault happens, and which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// Operation name such as `GetRecords`; every operation if absent.
    #[serde(default)]
    pub operation: Option<String>,
    /// Name of the stream; any if absent.
    #[serde(default)]
    pub stream: Option<String>,
    /// Shard id such as `shardId-000000000000`; any if absent. Puts are routed record by record, so on them a rule
    /// with a shard applies only as a partial failure.
    #[serde(default)]
    pub shard: Option<String>,
    /// Lets this many matching calls pass first.
    #[serde(default)]
    pub skip: u32,
    /// How often the fault happens; without end if absent.
    #[serde(default)]
    pub times: Option<u32>,
    /// Probability that a matching call (behind `skip`) is hit, 0 to 1; always if absent.
    #[serde(default)]
    pub chance: Option<f64>,
    /// What happens.
    pub kind: FaultKind,
}

impl FaultRule {
    /// A rule for every call of every operation; narrow it with the other methods.
    pub fn new(kind: FaultKind) -> Self {
        Self { operation: None, stream: None, shard: None, skip: 0, times: None, chance: None, kind }
    }

    /// Only on this operation.
    pub fn on(mut self, operation: &str) -> Self {
        self.operation = Some(operation.to_owned());
        self
    }

    /// Only on this stream.
    pub fn stream(mut self, name: &str) -> Self {
        self.stream = Some(name.to_owned());
        self
    }

    /// Only on this shard.
    pub fn shard(mut self, shard_id: &str) -> Self {
        self.shard = Some(shard_id.to_owned());
        self
    }

    /// Only this often.
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Only after this many matching calls.
    pub fn skip(mut self, calls: u32) -> Self {
        self.skip = calls;
        self
    }

    /// Only with this probability, 0 to 1.
    pub fn chance(mut self, probability: f64) -> Self {
        self.chance = Some(probability);
        self
    }
}

/// A rule that cannot be set.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FaultError {
    /// The operation is none that the emulator has.
    #[error("unknown operation {0:?}")]
    Operation(String),
    /// The kind never applies to the operation.
    #[error("this kind of fault does not apply to {0:?}")]
    Kind(String),
    /// A probability outside 0 to 1.
    #[error("probability {0} is not between 0 and 1")]
    Probability(f64),
    /// A status outside 400 to 599.
    #[error("status {0} is not between 400 and 599")]
    Status(u16),
    /// A latency above one hour.
    #[error("latency of {0} ms is above one hour")]
    Latency(u64),
}

/// A rule and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArmedFault {
    /// The rule as it was set.
    pub rule: FaultRule,
    /// Calls that matched.
    pub matched: u64,
    /// Calls that were hit.
    pub hit: u64,
}

/// The fault rules of an emulator; changes apply to the next call.
#[derive(Debug)]
pub struct Faults {
    /// Whether there are rules; read without the lock on every call.
    active: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rules: Vec<ArmedFault>,
    chance: Chance,
}

/// What one call is about; filled from the request.
#[derive(Debug, Default)]
pub(crate) struct Target {
    pub(crate) stream: Option<String>,
    pub(crate) shard: Option<String>,
}

/// What is to happen to one call.
#[derive(Debug, Default)]
pub(crate) struct Decision {
    pub(crate) latency: Duration,
    pub(crate) error: Option<ApiError>,
    pub(crate) cut: bool,
    pub(crate) partial: Option<PartialFailure>,
}

/// Which records of a put are to fail.
#[derive(Debug)]
pub(crate) struct PartialFailure {
    records: FailedRecords,
    shard: Option<String>,
    seed: u64,
}

impl PartialFailure {
    /// Whether the record at this place, meant for this shard, fails.
    pub(crate) fn hits(&self, place: usize, shard: &str) -> bool {
        if self.shard.as_deref().is_some_and(|only| only != shard) {
            return false;
        }
        match &self.records {
            FailedRecords::Indices(places) => places.contains(&place),
            FailedRecords::Fraction(fraction) => Chance(self.seed.wrapping_add(place as u64)).next() < *fraction,
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): enough for faults, and every seed is a good one.
#[derive(Debug)]
struct Chance(u64);

impl Chance {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in `[0, 1)`.
    fn next(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

impl Faults {
    pub(crate) fn new(seed: u64) -> Self {
        Self { active: AtomicBool::new(false), state: Mutex::new(State { rules: Vec::new(), chance: Chance(seed) }) }
    }

    /// Adds a rule behind the others.
    ///
    /// # Errors
    /// When the rule names an unknown operation or a value out of range, or could never apply.
    pub fn add(&self, rule: FaultRule) -> Result<(), FaultError> {
        self.add_all(vec![rule])
    }

    /// Adds rules in order, all of them or none.
    ///
    /// # Errors
    /// As [`Self::add`], for the first rule refused.
    pub fn add_all(&self, rules: Vec<FaultRule>) -> Result<(), FaultError> {
        rules.iter().try_for_each(check)?;
        let armed = rules.into_iter().map(|rule| ArmedFault { rule, matched: 0, hit: 0 });
        let mut state = lock(&self.state);
        state.rules.extend(armed);
        self.active.store(!state.rules.is_empty(), Ordering::Release);
        Ok(())
    }

    /// Removes all rules.
    pub fn clear(&self) {
        let mut state = lock(&self.state);
        state.rules.clear();
        self.active.store(false, Ordering::Release);
    }

    /// Starts chance anew.
    pub fn seed(&self, seed: u64) {
        lock(&self.state).chance = Chance(seed);
    }

    /// The rules in order, with what became of them; used-up ones stay listed.
    pub fn rules(&self) -> Vec<ArmedFault> {
        lock(&self.state).rules.clone()
    }

    /// Whether a call has to be decided at all.
    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// What happens to this call; counts it.
    pub(crate) fn decide(&self, operation: &str, target: &Target) -> Decision {
        let mut decision = Decision::default();
        let mut decided = false;
        let State { rules, chance } = &mut *lock(&self.state);
        for armed in rules {
            if !matches(&armed.rule, operation, target) {
                continue;
            }
            let is_latency = matches!(armed.rule.kind, FaultKind::Latency { .. });
            if decided && !is_latency {
                continue;
            }
            armed.matched += 1;
            let used_up = armed.rule.times.is_some_and(|times| armed.hit >= u64::from(times));
            let waits = armed.matched <= u64::from(armed.rule.skip);
            if used_up || waits || armed.rule.chance.is_some_and(|p| chance.next() >= p) {
                continue;
            }
            armed.hit += 1;
            decided |= !is_latency;
            apply(&armed.rule, &mut decision, chance);
        }
        decision
    }
}

fn apply(rule: &FaultRule, decision: &mut Decision, chance: &mut Chance) {
    match &rule.kind {
        FaultKind::Latency { ms } => decision.latency += Duration::from_millis(*ms),
        FaultKind::Status { status, error_type } => {
            decision.error = Some(ApiError::injected(*status, error_type.clone()))
        }
        FaultKind::Throttle => {
            decision.error = Some(ApiError::injected(400, "ProvisionedThroughputExceededException"));
        }
        FaultKind::ExpireIterator => decision.error = Some(ApiError::injected(400, "ExpiredIteratorException")),
        FaultKind::CutAfterApply => decision.cut = true,
        FaultKind::PartialFailure(records) => {
            let (records, shard) = (records.clone(), rule.shard.clone());
            decision.partial = Some(PartialFailure { records, shard, seed: chance.next_u64() });
        }
    }
}

fn matches(rule: &FaultRule, operation: &str, target: &Target) -> bool {
    let by_record = match rule.kind {
        FaultKind::PartialFailure(_) if operation != "PutRecords" => return false,
        FaultKind::ExpireIterator if operation != "GetRecords" => return false,
        FaultKind::PartialFailure(_) => true,
        _ => false,
    };
    rule.operation.as_deref().is_none_or(|o| o == operation)
        && rule.stream.as_ref().is_none_or(|s| target.stream.as_ref() == Some(s))
        && (by_record || rule.shard.as_ref().is_none_or(|s| target.shard.as_ref() == Some(s)))
}

fn check(rule: &FaultRule) -> Result<(), FaultError> {
    if let Some(operation) = &rule.operation {
        if !api::OPERATIONS.contains(&operation.as_str()) {
            return Err(FaultError::Operation(operation.clone()));
        }
        let only = match rule.kind {
            FaultKind::PartialFailure(_) => "PutRecords",
            FaultKind::ExpireIterator => "GetRecords",
            _ => operation,
        };
        if only != operation {
            return Err(FaultError::Kind(operation.clone()));
        }
    }
    let fraction = match &rule.kind {
        FaultKind::PartialFailure(FailedRecords::Fraction(fraction)) => Some(*fraction),
        FaultKind::Status { status, .. } if !(400..=599).contains(status) => return Err(FaultError::Status(*status)),
        FaultKind::Latency { ms } if *ms > 3_600_000 => return Err(FaultError::Latency(*ms)),
        _ => None,
    };
    for probability in [fraction, rule.chance].into_iter().flatten() {
        if !(0.0..=1.0).contains(&probability) {
            return Err(FaultError::Probability(probability));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "faults_tests.rs"]
mod tests;
