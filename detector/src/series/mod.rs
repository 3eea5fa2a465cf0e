//! Changes of level in a single series: one value at a time in, a change out when the level has moved.
//!
//! For: series without counts behind them, such as one ping every few minutes. Not for: subnet pairs; what they say has
//! a sample size, and [`crate::lane`] uses it. Invariant: online; a change is told from values up to it alone, and both
//! directions count. The rules and what they were tuned on: [`Rules`].

mod changes;
mod segment;

pub use changes::{Change, ChangeDetector, Direction, Rule, Rules};
