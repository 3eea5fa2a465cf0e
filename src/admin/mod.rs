//! The admin port: `/metrics`, `/livez`, `/readyz`, `/startupz`, and an operator's door under `/v1`.
//!
//! Probes answer from what the program says about itself ([`Health`]), never by asking AWS: a region that is down must
//! not restart every pod. Meant for loopback or the pod network: who reaches it sees the incidents; commands need a
//! token ([`operator`]).
//!
//! Not here: metric names (`metrics`).
//!
//! Reading order: [`Health`], then [`router()`] and [`serve`], then [`operator`].

mod health;
pub mod operator;
mod router;

pub use health::{Health, Probe};
pub use router::{DEFAULT_ADDRESS, router, serve};
