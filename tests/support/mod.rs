//! What the end-to-end tests share: they run the real binary on loopback and look at it from outside.
//!
//! `program` starts and ends it, `site` is a directory with all a run needs, `http` a client, `capture` the real agent bodies,
//! `receiver` a webhook receiver in another language, `hook` one in the test's process, `oracle` independent sums, `flows` records made by hand, `disturbed` a run that is killed and goes on, `tools` what may
//! be missing on a machine. Nothing here waits by sleeping: it waits for a line, an answer or the end of a process, under a
//! deadline; [`tools::until`] is the one poll, for what tells nobody when it changes.
//!
//! Every test program compiles all of this and uses its part.
#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod capture;
pub(crate) mod disturbed;
pub(crate) mod flows;
pub(crate) mod hook;
pub(crate) mod http;
pub(crate) mod kinesis;
pub(crate) mod oracle;
pub(crate) mod program;
pub(crate) mod receiver;
pub(crate) mod site;
pub(crate) mod tools;
