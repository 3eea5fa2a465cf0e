//! Where the demo's text goes: lines on standard output, and on a terminal one status line below them.
//!
//! With `--json` standard output carries the events and nothing else. Keeps the events for the outcome. Not here: words and
//! numbers, see [`super::text`]. Invariant: a status line is wiped before a line is written.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use flowshift_proto::anomaly::AnomalyEvent;

use super::text::{self, Status, Style, Told};

/// Carriage return and "erase to the end of the line" (ECMA-48).
const WIPE: &str = "\r\x1b[K";

/// The demo's standard output.
#[derive(Debug)]
pub(super) struct Screen {
    json: bool,
    /// Whether there is a status line.
    live: bool,
    style: Style,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    events: Vec<AnomalyEvent>,
    /// What was told of each incident.
    told: BTreeMap<String, Told>,
    status: Option<String>,
}

impl Screen {
    /// Standard output as it is: colours and a status line on a terminal only, no colours with `NO_COLOR`.
    pub(super) fn new(json: bool) -> Self {
        let terminal = std::io::stdout().is_terminal() && !json;
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let style = Style { colour: terminal && !no_colour && !dumb };
        Self { json, live: terminal && !dumb, style, state: Mutex::default() }
    }

    pub(super) fn style(&self) -> Style {
        self.style
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes text for people.
    pub(super) fn say(&self, text: &str) {
        if !self.json {
            self.write(&self.state(), text);
        }
    }

    /// Takes an event as one line of JSON, and tells it. `threshold`: nats at which an incident opens.
    pub(super) fn event(&self, line: &str, threshold: f64) {
        let mut state = self.state();
        match serde_json::from_str::<AnomalyEvent>(line) {
            Ok(event) => {
                let before = state.told.get(&event.incident).copied();
                let text = text::event(&event, before, threshold, self.style);
                self.write(&state, if self.json { line } else { &text });
                state.told.insert(event.incident.clone(), Told::after(&event, before));
                state.events.push(event);
            }
            Err(error) => tracing::error!(error = %error, "event cannot be read"),
        }
    }

    /// Changes the status line.
    pub(super) fn status(&self, status: &Status) {
        self.doing(&text::status(status, self.style));
    }

    /// Changes the status line to any text.
    pub(super) fn doing(&self, line: &str) {
        if self.live {
            let mut state = self.state();
            put(&format!("{WIPE}{line}"));
            state.status = Some(line.to_owned());
        }
    }

    /// Takes the status line away.
    pub(super) fn end_status(&self) {
        if self.state().status.take().is_some() {
            put(WIPE);
        }
    }

    /// Every event so far.
    pub(super) fn events(&self) -> Vec<AnomalyEvent> {
        self.state().events.clone()
    }

    fn write(&self, state: &State, text: &str) {
        match &state.status {
            Some(status) => put(&format!("{WIPE}{text}\n{status}")),
            None => put(&format!("{text}\n")),
        }
    }
}

/// A reader that went away is no failure.
fn put(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
}
