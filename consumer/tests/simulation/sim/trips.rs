//! Stages that panic now and then.

use std::sync::{Arc, Mutex};

use rand::Rng;
use rand::rngs::SmallRng;

/// Where the stages of a world may trip; off without its chance.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trips(Arc<Mutex<(Option<SmallRng>, u64)>>);

impl Trips {
    pub(crate) fn begin(&self, chance: SmallRng) {
        self.0.lock().unwrap().0 = Some(chance);
    }

    /// No more; says how often a stage tripped.
    pub(crate) fn end(&self) -> u64 {
        let mut trips = self.0.lock().unwrap();
        trips.0 = None;
        trips.1
    }

    /// A step of a stage: one in thirty panics, without the noise of the panic hook.
    pub(crate) fn step(&self) {
        let mut trips = self.0.lock().unwrap();
        if trips.0.as_mut().is_some_and(|chance| chance.random_ratio(1, 30)) {
            trips.1 += 1;
            drop(trips);
            std::panic::resume_unwind(Box::new("tripped"));
        }
    }
}
