//! Endpoints that said 410, between the workers that find it out, the stage that commits it, and the operator who enables.
//!
//! For: one owner's endpoints while it delivers. A worker turns its [`Switch`] off before it reports the entry, so whoever
//! hears of the entry finds it here; the stage looks at its [`Board`] whenever it saves, and says when that is committed; the
//! admin server finds the board of the present owner through [`Switches`]. Not for: other processes, which know no endpoint.
//! Invariants: an operator is answered only after a commit that holds what was asked; no board is found before it has what an
//! earlier owner committed, nor after its stage has gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{Disabled, DisabledEndpoints, Endpoint, Format, UrlDigest};

/// The way to the endpoints this process delivers to; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Switches(Arc<Mutex<Option<Found>>>);

/// The board of the present owner.
#[derive(Debug)]
struct Found {
    switchboard: Switchboard,
    /// How many of the board's changes are committed.
    committed: watch::Receiver<u64>,
}

/// One endpoint as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchState {
    /// The configured name.
    pub name: String,
    /// The form of its bodies.
    pub format: Format,
    /// It answered 410 and gets nothing.
    pub disabled: Option<Disabled>,
}

/// Why an endpoint was not enabled for good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnableError {
    /// This process does not deliver to an endpoint of this name.
    #[error("no webhook {0} is delivered to by this process")]
    Unknown(String),
    /// The process stopped delivering before it was committed: a next owner may know nothing of it.
    #[error("webhook {0} is not enabled for good: another worker delivers now")]
    Lost(String),
}

impl Switches {
    /// The endpoints by name; none in a process that does not deliver.
    #[must_use]
    pub fn list(&self) -> Vec<SwitchState> {
        lock(&self.0).as_ref().map(|found| found.switchboard.list()).unwrap_or_default()
    }

    /// Lets an endpoint get entries again, and waits until that and all that was known before is committed. Returns whether
    /// it was disabled.
    ///
    /// # Errors
    /// The process does not deliver to it, or no longer. When this is dropped instead it may be committed later.
    pub async fn enable(&self, name: &str) -> Result<bool, EnableError> {
        let (was_disabled, changes, mut committed) = {
            let found = lock(&self.0);
            let unknown = || EnableError::Unknown(name.to_owned());
            let found = found.as_ref().ok_or_else(unknown)?;
            let (was_disabled, changes) = found.switchboard.enable(name).ok_or_else(unknown)?;
            (was_disabled, changes, found.committed.clone())
        };
        match committed.wait_for(|committed| *committed >= changes).await {
            Ok(_) => Ok(was_disabled),
            Err(_) => Err(EnableError::Lost(name.to_owned())),
        }
    }
}

/// All endpoints of one owner; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Switchboard(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    endpoints: BTreeMap<String, Line>,
    /// Counts what changed in `endpoints`.
    changes: u64,
}

#[derive(Debug)]
struct Line {
    format: Format,
    /// Of the URL it is reached by now.
    url: UrlDigest,
    disabled: watch::Sender<Option<Disabled>>,
}

impl Switchboard {
    pub(super) fn new<'a>(endpoints: impl Iterator<Item = &'a Endpoint>) -> Self {
        let line = |endpoint: &Endpoint| {
            let line = Line { format: endpoint.format(), url: endpoint.url_digest(), disabled: watch::channel(None).0 };
            (endpoint.name().to_owned(), line)
        };
        Self(Arc::new(Mutex::new(Lines { endpoints: endpoints.map(line).collect(), changes: 0 })))
    }

    /// The switch of an endpoint; one of a name that is not here is seen by nobody.
    pub(super) fn switch(&self, name: &str) -> Switch {
        let known = lock(&self.0).endpoints.get(name).map(|line| line.disabled.clone());
        Switch { switchboard: self.clone(), disabled: known.unwrap_or_else(|| watch::channel(None).0) }
    }

    fn list(&self) -> Vec<SwitchState> {
        let state = |(name, line): (&String, &Line)| SwitchState {
            name: name.clone(),
            format: line.format,
            disabled: line.disabled.borrow().clone(),
        };
        lock(&self.0).endpoints.iter().map(state).collect()
    }

    /// Whether it was disabled, and how many changes there are with it.
    fn enable(&self, name: &str) -> Option<(bool, u64)> {
        let mut lines = lock(&self.0);
        let was_disabled = lines.endpoints.get(name)?.disabled.send_replace(None).is_some();
        lines.changes += u64::from(was_disabled);
        Some((was_disabled, lines.changes))
    }

    /// Takes over what is committed; what is of no endpoint here, or of another URL, counts as changed.
    fn restore(&self, committed: &DisabledEndpoints) {
        let mut lines = lock(&self.0);
        for (name, disabled) in committed {
            match lines.endpoints.get(name) {
                Some(line) if line.url == disabled.url => {
                    line.disabled.send_replace(Some(disabled.clone()));
                    tracing::warn!(
                        endpoint = name,
                        "webhook endpoint answered 410 to an earlier owner and gets nothing"
                    );
                    continue;
                }
                Some(_) => tracing::info!(endpoint = name, "webhook endpoint has another url and is enabled"),
                None => tracing::info!(endpoint = name, "webhook endpoint is no longer configured and is forgotten"),
            }
            lines.changes += 1;
        }
    }
}

/// The stage's side of one owner's endpoints. What it holds when the stage saves is what the commit holds.
#[derive(Debug, Default)]
pub struct Board {
    switches: Switches,
    switchboard: Switchboard,
    /// Changes that the last look saw.
    seen: u64,
    /// Of them, those that are committed.
    committed: watch::Sender<u64>,
}

impl Board {
    pub(super) fn new(switches: Switches, switchboard: Switchboard) -> Self {
        Self { switches, switchboard, seen: 0, committed: watch::Sender::default() }
    }

    /// Begins with what the committed state says, and lets operators find the endpoints. To be called once, before the first
    /// entry is handed out.
    pub fn begin(&mut self, committed: &DisabledEndpoints) {
        self.switchboard.restore(committed);
        let found = Found { switchboard: self.switchboard.clone(), committed: self.committed.subscribe() };
        *lock(&self.switches.0) = Some(found);
    }

    /// Whether a look would find something new.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        lock(&self.switchboard.0).changes != self.seen
    }

    /// The disabled endpoints as they are now, to be saved.
    pub fn look(&mut self) -> DisabledEndpoints {
        let lines = lock(&self.switchboard.0);
        self.seen = lines.changes;
        let disabled = |(name, line): (&String, &Line)| Some((name.clone(), line.disabled.borrow().clone()?));
        lines.endpoints.iter().filter_map(disabled).collect()
    }

    /// What the last look found is committed: whoever waits for it is answered.
    pub fn commit(&mut self) {
        self.committed.send_replace(self.seen);
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        let mut present = lock(&self.switches.0);
        // The next owner in this process may have begun already.
        if present.as_ref().is_some_and(|found| Arc::ptr_eq(&found.switchboard.0, &self.switchboard.0)) {
            *present = None;
        }
    }
}

/// A running endpoint's side.
#[derive(Debug)]
pub(super) struct Switch {
    switchboard: Switchboard,
    disabled: watch::Sender<Option<Disabled>>,
}

impl Switch {
    pub(super) fn is_disabled(&self) -> bool {
        self.disabled.borrow().is_some()
    }

    /// Says whether it was not disabled before; if it was, the first time stays.
    pub(super) fn disable(&self, disabled: Disabled) -> bool {
        let mut lines = lock(&self.switchboard.0);
        let is_new = self.disabled.send_if_modified(|present| {
            let is_new = present.is_none();
            present.get_or_insert(disabled);
            is_new
        });
        lines.changes += u64::from(is_new);
        is_new
    }

    /// Says whether it is enabled now, because it is reached by another URL than the one that answered.
    pub(super) fn enable_at(&self, url: UrlDigest) -> bool {
        let mut lines = lock(&self.switchboard.0);
        let moved = self.disabled.send_if_modified(|present| present.take_if(|present| present.url != url).is_some());
        lines.changes += u64::from(moved);
        moved
    }

    pub(super) fn watch(&self) -> watch::Receiver<Option<Disabled>> {
        self.disabled.subscribe()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::Secrets;

    const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

    fn endpoint(name: &str, url: &str) -> Endpoint {
        Endpoint::new(name, url, Secrets::parse(SECRET).unwrap()).unwrap()
    }

    fn board(switches: &Switches, endpoints: &[Endpoint]) -> Board {
        Board::new(switches.clone(), Switchboard::new(endpoints.iter()))
    }

    fn gone(endpoint: &Endpoint, since_ms: i64) -> Disabled {
        Disabled { since_ms, event: Some("evt_1".to_owned()), url: endpoint.url_digest() }
    }

    fn disabled(switches: &Switches) -> Vec<String> {
        switches.list().into_iter().filter(|state| state.disabled.is_some()).map(|state| state.name).collect()
    }

    #[tokio::test]
    async fn an_endpoint_is_found_while_its_stage_lives_and_an_earlier_ones_end_does_not_hide_it() {
        let (switches, ops) = (Switches::default(), endpoint("ops", "http://ops/hook"));
        let mut first = board(&switches, std::slice::from_ref(&ops));
        assert_eq!(switches.list(), [], "it does not know yet what is committed");
        first.begin(&DisabledEndpoints::from([("ops".to_owned(), gone(&ops, 7))]));
        assert_eq!(switches.list()[0].disabled, Some(gone(&ops, 7)));
        let mut second = board(&switches, std::slice::from_ref(&ops));
        second.begin(&DisabledEndpoints::new());
        drop(first);
        assert_eq!(switches.list()[0].disabled, None);
        drop(second);
        assert_eq!(switches.list(), []);
        assert_eq!(switches.enable("ops").await, Err(EnableError::Unknown("ops".to_owned())));
    }

    #[test]
    fn what_is_committed_of_another_url_or_of_no_endpoint_is_forgotten_and_is_a_change() {
        let (ops, moved) = (endpoint("ops", "http://ops/hook"), endpoint("moved", "http://moved/new"));
        let committed = DisabledEndpoints::from([
            ("ops".to_owned(), gone(&ops, 7)),
            ("moved".to_owned(), gone(&endpoint("moved", "http://moved/old"), 7)),
            ("removed".to_owned(), gone(&ops, 7)),
        ]);
        let switches = Switches::default();
        let mut both = board(&switches, &[endpoint("ops", "http://ops/hook"), moved]);
        both.begin(&committed);
        assert_eq!(disabled(&switches), ["ops"]);
        assert!(both.has_changed());
        let kept = DisabledEndpoints::from([("ops".to_owned(), gone(&ops, 7))]);
        assert_eq!(both.look(), kept);
        let mut same = board(&switches, &[ops]);
        same.begin(&kept);
        assert!(!same.has_changed(), "nothing to be committed");
    }

    #[test]
    fn the_first_410_stays_and_a_change_after_a_look_is_seen_by_the_next() {
        let (switches, ops) = (Switches::default(), endpoint("ops", "http://ops/hook"));
        let switchboard = Switchboard::new(std::iter::once(&ops));
        let (switch, mut board) = (switchboard.switch("ops"), Board::new(switches, switchboard));
        board.begin(&DisabledEndpoints::new());
        assert!(switch.disable(gone(&ops, 1)) && !switch.disable(gone(&ops, 2)) && board.has_changed());
        assert_eq!(board.look()["ops"].since_ms, 1);
        assert!(!board.has_changed());
    }

    #[tokio::test]
    async fn an_operator_is_answered_after_the_commit_that_holds_it_and_not_for_one_that_began_before() {
        let (switches, ops) = (Switches::default(), endpoint("ops", "http://ops/hook"));
        let mut board = board(&switches, std::slice::from_ref(&ops));
        board.begin(&DisabledEndpoints::from([("ops".to_owned(), gone(&ops, 7))]));
        assert_eq!(board.look().len(), 1);
        let mut asked = std::pin::pin!(switches.enable("ops"));
        assert!(futures::poll!(&mut asked).is_pending());
        board.commit();
        assert!(futures::poll!(&mut asked).is_pending(), "that commit had it disabled");
        assert!(board.look().is_empty());
        assert!(futures::poll!(&mut asked).is_pending(), "not committed yet");
        board.commit();
        assert_eq!(asked.await, Ok(true));
        assert_eq!(switches.enable("ops").await, Ok(false));
    }

    #[tokio::test]
    async fn an_operator_who_waits_for_an_owner_that_goes_is_told_so() {
        let (switches, ops) = (Switches::default(), endpoint("ops", "http://ops/hook"));
        let mut board = board(&switches, std::slice::from_ref(&ops));
        board.begin(&DisabledEndpoints::from([("ops".to_owned(), gone(&ops, 7))]));
        let mut asked = std::pin::pin!(switches.enable("ops"));
        assert!(futures::poll!(&mut asked).is_pending());
        drop(board);
        assert_eq!(asked.await, Err(EnableError::Lost("ops".to_owned())));
    }
}
