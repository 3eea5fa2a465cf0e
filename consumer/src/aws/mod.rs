//! What the two AWS services have in common: how an answer is sorted, and the counting of every call.
//!
//! [`Outcome`] is the one place that knows error codes; the seams ([`log`](crate::log), [`table`](crate::table)) turn
//! it into what the engine may do about it. [`CountCalls`] is put into an SDK client's configuration and sees every
//! call of that client, whoever makes it.

mod count;
mod outcome;
mod text;

pub use count::CountCalls;
pub use outcome::Outcome;
pub(crate) use text::chain;
