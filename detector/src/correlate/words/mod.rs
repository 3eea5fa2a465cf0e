//! An operator's words: acknowledge, mute, not an issue.
//!
//! For: what a person says about incidents, taken at its place in the ordered evidence, so that every replay and every
//! takeover hears it at the same place.
//! Not for: who may say it, nor how it gets into the evidence; that is the program's.
//! Invariant: a word that stands in the evidence twice counts once, and one that says nothing new changes nothing.
//! Reading order: `word` (what can be said), `book` (what is remembered of it), `hear` (what a word does), `mark` (what
//! events tell of it).

mod book;
mod hear;
mod mark;
mod word;

pub use book::{Dismissal, Heard, Mute, Words};
pub use hear::Outcome;
pub use word::{LONGEST_S, Order, Place, Scope, Word};
