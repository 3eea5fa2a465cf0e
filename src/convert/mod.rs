//! Between the detector's types and the forms on the wire, which do not know each other on purpose.
//!
//! For: [`pane`] (AGGREGATE → DETECT), [`evidence`] (DETECT → CORRELATE), [`word`] (operators → CORRELATE), [`event`]
//! (CORRELATE → receivers).
//! Not for: envelopes, numbers and marks; those are the engine's. Nothing here decides or computes.
//! Invariant: what was written is read back equal, and what could not have been written is an error that names the value,
//! never a guess. No error here can be helped by trying again: the stage that meets one stops.

mod error;
pub mod event;
pub mod evidence;
pub mod pane;
pub mod word;

pub use error::ConvertError;
