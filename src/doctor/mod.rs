//! `flowshift doctor`: looks at everything a process needs before it runs, and says what is wrong and how to mend it.
//!
//! Each check is a module with a small part that asks and a pure part that judges. They run side by side, each under
//! a time limit; one that fails stops none. Not here: printing ([`crate::command`]) and the cross checks of settings
//! ([`crate::config`]), which come first.
//! Invariant: nothing is changed, put or delivered. Calls that write carry arguments that cannot succeed, and the
//! answer still tells whether they are allowed.
//! Read next: `run` (the list of checks), `finding` (what comes out), then `permission` for the dry calls.

mod answer;
mod clock;
mod finding;
mod foreign;
mod identity;
mod listen;
mod part;
mod patient;
mod permission;
mod renewal;
mod run;
mod sample;
mod settings;
mod stream;
mod table;
mod topology;
mod webhook;

pub use finding::{Finding, Level, Report};
pub use part::Part;
pub use patient::Patient;
pub use run::{examine, unreadable};
