//! What the program says about itself: started, ready, alive.
//!
//! Components hold a clone of [`Health`] and name what is wrong with them; a probe answers from that alone.
//! * started: the program has loaded its configuration and runs its stages; never goes back.
//! * ready: started and nothing blocks (a drain blocks).
//! * alive: every task with a [`Heartbeat`] has shown itself within its limit and none said that it is beyond help.
//!
//! Invariant: a dependency being down (AWS, a receiver) never makes the program not alive.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

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
    /// Component → why only a restart can help.
    failed: BTreeMap<&'static str, String>,
    /// Task → when it last showed itself and how long it may be silent.
    beats: BTreeMap<&'static str, (Instant, Duration)>,
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

    /// Takes a component's block away.
    pub fn unblock(&self, component: &'static str) {
        self.lock().blocked.remove(component);
    }

    /// Makes the program not alive for good: the component cannot recover without a restart.
    pub fn fail(&self, component: &'static str, reason: impl Into<String>) {
        self.lock().failed.insert(component, reason.into());
    }

    /// Watches a task: it is held dead when it does not beat for `limit`. Dropping the heartbeat ends the watch.
    #[must_use]
    pub fn heartbeat(&self, task: &'static str, limit: Duration) -> Heartbeat {
        self.lock().beats.insert(task, (Instant::now(), limit));
        Heartbeat { health: self.clone(), task }
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
            Probe::Started | Probe::Ready => {}
            Probe::Alive => {
                let now = Instant::now();
                for (task, (last, limit)) in &state.beats {
                    let silent = now.saturating_duration_since(*last);
                    if silent > *limit {
                        say(task, format!("silent for {} s, limit {} s", silent.as_secs(), limit.as_secs()));
                    }
                }
                for (component, reason) in &state.failed {
                    say(component, reason.clone());
                }
            }
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

/// A task's proof that it turns.
#[derive(Debug)]
pub struct Heartbeat {
    health: Health,
    task: &'static str,
}

impl Heartbeat {
    /// The task turned once more.
    pub fn beat(&self) {
        if let Some((last, _)) = self.health.lock().beats.get_mut(self.task) {
            *last = Instant::now();
        }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.health.lock().beats.remove(self.task);
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
        health.unblock("drain");
        assert!(health.reasons(Probe::Ready).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_task_makes_it_not_alive_until_it_beats_again() {
        let health = Health::new();
        let heart = health.heartbeat("correlate", Duration::from_secs(30));
        tokio::time::advance(Duration::from_secs(30)).await;
        assert!(health.reasons(Probe::Alive).is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(health.reasons(Probe::Alive)["correlate"], "silent for 31 s, limit 30 s");
        heart.beat();
        assert!(health.reasons(Probe::Alive).is_empty());
        tokio::time::advance(Duration::from_secs(60)).await;
        drop(heart);
        assert!(health.reasons(Probe::Alive).is_empty());
    }

    #[test]
    fn a_failure_beyond_help_makes_it_not_alive() {
        let health = Health::new();
        health.fail("state", "disk gone");
        assert_eq!(health.reasons(Probe::Alive)["state"], "disk gone");
    }
}
