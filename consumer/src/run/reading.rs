//! How a stream is read: a choice per stream, made where the job is put together.

use crate::kpl::Kpl;

/// How one stream is read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reading {
    /// Taking KPL aggregates apart; none: every record is passed on as it is.
    pub kpl: Option<Kpl>,
}

impl Reading {
    /// For a stream of foreign producers: aggregates are taken apart as KCL does.
    pub fn with_kpl() -> Self {
        Self { kpl: Some(Kpl::default()) }
    }
}
