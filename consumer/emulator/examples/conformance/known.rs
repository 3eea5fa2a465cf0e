//! Where a target is known to differ from what AWS documents, and why that is accepted.
//!
//! An entry excuses one check on one target; a difference that is not here fails the run.

const KNOWN: &[(&str, &str, &str)] = &[];

/// Why `target` may differ in this check.
pub(crate) fn reason(target: &str, check: &str) -> Option<&'static str> {
    KNOWN.iter().find(|(t, c, _)| *t == target && *c == check).map(|(_, _, reason)| *reason)
}
