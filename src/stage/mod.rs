//! The three stages of the job, in the data's order.
//!
//! [`aggregate`] turns flow records of one input shard into partial panes per lane, [`detect`] owns the panes of its
//! lanes and judges their steps, [`correlate`] owns the incidents and the outbox. Each implements one trait of the
//! engine; what crosses between them is encoded by `proto` and converted in [`crate::convert`]. Past the
//! streams: [`seed`] makes baselines from history, [`direct`] is DETECT and CORRELATE called one after the other.

pub mod aggregate;
pub mod correlate;
pub mod detect;
pub mod direct;
pub mod rules;
pub mod seed;
#[cfg(test)]
mod stored_size;
