//! Endpoints that said 410, and the way to try them again.
//!
//! For: the admin server of the process that delivers, which can show and enable them. Not for: other processes, which know
//! no endpoint. Invariant: an endpoint stands here exactly while a deliverer of this process runs it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::Format;

/// The endpoints this process delivers to; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Switches(Arc<Mutex<BTreeMap<String, Shared>>>);

#[derive(Debug, Clone)]
struct Shared {
    format: Format,
    disabled: Arc<watch::Sender<bool>>,
}

/// One endpoint as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchState {
    /// The configured name.
    pub name: String,
    /// The form of its bodies.
    pub format: Format,
    /// It answered 410 and gets nothing.
    pub disabled: bool,
}

impl Switches {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Shared>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The endpoints by name.
    #[must_use]
    pub fn list(&self) -> Vec<SwitchState> {
        let state = |(name, shared): (&String, &Shared)| SwitchState {
            name: name.clone(),
            format: shared.format,
            disabled: *shared.disabled.borrow(),
        };
        self.lock().iter().map(state).collect()
    }

    /// Lets an endpoint get entries again. Returns whether it was disabled; `None` when this process does not deliver to it.
    #[must_use]
    pub fn enable(&self, name: &str) -> Option<bool> {
        self.lock().get(name).map(|shared| shared.disabled.send_replace(false))
    }

    /// Shows an endpoint while the returned switch lives.
    pub(super) fn attach(&self, name: &str, format: Format) -> Switch {
        let disabled = Arc::new(watch::channel(false).0);
        self.lock().insert(name.to_owned(), Shared { format, disabled: Arc::clone(&disabled) });
        Switch { switches: self.clone(), name: name.to_owned(), disabled }
    }
}

/// A running endpoint's side.
#[derive(Debug)]
pub(super) struct Switch {
    switches: Switches,
    name: String,
    disabled: Arc<watch::Sender<bool>>,
}

impl Switch {
    pub(super) fn is_disabled(&self) -> bool {
        *self.disabled.borrow()
    }

    pub(super) fn disable(&self) {
        self.disabled.send_replace(true);
    }

    pub(super) fn watch(&self) -> watch::Receiver<bool> {
        self.disabled.subscribe()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let mut all = self.switches.lock();
        // The next owner in this process may have begun already.
        if all.get(&self.name).is_some_and(|shared| Arc::ptr_eq(&shared.disabled, &self.disabled)) {
            all.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_known_while_it_runs_and_a_later_owner_is_not_taken_away_by_the_earlier_ones_end() {
        let switches = Switches::default();
        assert_eq!(switches.enable("ops"), None);
        let first = switches.attach("ops", Format::Slack);
        first.disable();
        assert_eq!(switches.list(), [SwitchState { name: "ops".into(), format: Format::Slack, disabled: true }]);
        assert_eq!(
            (switches.enable("ops"), switches.enable("ops"), first.is_disabled()),
            (Some(true), Some(false), false)
        );
        let second = switches.attach("ops", Format::Slack);
        drop(first);
        assert_eq!(switches.list().len(), 1);
        drop(second);
        assert_eq!(switches.list(), []);
    }
}
