//! A simulated region: subnets, agents and their reports, natural noise and planted faults; the input of `demo`,
//! `simulate` and tests.
//!
//! Pure and seeded: no clock, no I/O but [`write_files`]. Every report is a function of (seed, agent, number), so any
//! stretch of time can be made alone and equals the same stretch of a longer run. What the agents say has the shape
//! and meaning of the Network Flow Monitor agent's reports (one row per peer, service and role; RTT as count, min,
//! max, sum; segments include retransmits). Not here: the detector's view of any of it.
//! Invariant: same seed and same times, same bytes (of one build: the random generator is pinned by the lock file).
//! Read next: [`region`], then [`flows`].

mod agent;
mod files;
mod flows;
mod pair;
mod planted;
mod random;
mod region;
mod report;

#[cfg(test)]
mod tests;

pub use files::{SimulateError, Written, write_files};
pub use planted::{Element, Planted, PlantedKind};
pub use region::Region;
pub use report::{SimFlow, SimReport, SimRtt};
