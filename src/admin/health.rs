//! What the program says about itself: started, ready, alive.
//!
//! Components hold a clone of [`Health`] and name what is wrong with them; a probe answers from that alone.
//! * started: the program has loaded its configuration and runs its stages; never goes back.
//! * ready: started and nothing blocks; being asked to stop blocks, and nothing else does.
//! * alive: it answers. A job that cannot go on ends its process, and a shard that cannot is tried again.
//!
//! Invariant: a dependency being down (AWS, a receiver) makes the program neither not ready nor not alive.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Which of the three questions a probe asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// Has it started? `/startupz`
    Started,
    /// Should a rollout go on? `/readyz`
    Ready,
    /// Must it be restarted? `/livez`
    Alive,
}

/// The program's word about itself; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Health {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    started: bool,
    /// Component → why it is not ready.
    blocked: BTreeMap<&'static str, String>,
}

impl Health {
    /// Alive, not started, nothing blocked.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that the start is over.
    pub fn mark_started(&self) {
        self.lock().started = true;
    }

    /// Makes the program not ready, with a reason a person can act on; a second call replaces the reason.
    pub fn block(&self, component: &'static str, reason: impl Into<String>) {
        self.lock().blocked.insert(component, reason.into());
    }

    /// The reasons why a probe's answer is no, sorted by component; empty means yes.
    #[must_use]
    pub fn reasons(&self, probe: Probe) -> BTreeMap<String, String> {
        let state = self.lock();
        let mut reasons = BTreeMap::new();
        let mut say = |component: &str, reason: String| reasons.insert(component.to_owned(), reason);
        match probe {
            Probe::Started | Probe::Ready if !state.started => {
                say("start", "not finished".to_owned());
            }
            Probe::Started | Probe::Ready | Probe::Alive => {}
        }
        if probe == Probe::Ready {
            for (component, reason) in &state.blocked {
                say(component, reason.clone());
            }
        }
        reasons
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every write is a single insert or remove, so a poisoned lock holds a whole state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_not_ready_before_the_start_is_over() {
        let health = Health::new();
        assert!(health.reasons(Probe::Started).contains_key("start"));
        assert!(health.reasons(Probe::Ready).contains_key("start"));
        health.mark_started();
        assert!(health.reasons(Probe::Started).is_empty());
        assert!(health.reasons(Probe::Ready).is_empty());
    }

    #[test]
    fn a_block_makes_it_not_ready_but_leaves_it_alive_and_started() {
        let health = Health::new();
        health.mark_started();
        health.block("drain", "leaving");
        assert_eq!(health.reasons(Probe::Ready).get("drain").map(String::as_str), Some("leaving"));
        assert!(health.reasons(Probe::Alive).is_empty());
        assert!(health.reasons(Probe::Started).is_empty());
    }
}
