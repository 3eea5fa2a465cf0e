//! The admin port: `/metrics`, `/livez`, `/readyz`, `/startupz`.
//!
//! Probes answer from what the program says about itself ([`Health`]), never by asking AWS: a region that is down must not
//! restart every pod. Meant for loopback or the pod network; it has no authentication and shows no flow data.
//!
//! Not here: metric names (`metrics`), commands to the running program.
//!
//! Reading order: [`Health`], then [`router()`] and [`serve`].

mod health;
mod router;

pub use health::{Health, Heartbeat, Probe};
pub use router::{DEFAULT_ADDRESS, router, serve};
