//! Bugs that the tests switch on to prove that they would be seen (`tests/planted`).
//!
//! Each is a fail point of the crate `fail`, compiled to nothing without its feature `failpoints`, and off unless a
//! test configures it. Not here: bugs that can be planted at a seam; those live in the test.

/// Whether the bug of this name is switched on.
pub(crate) fn planted(name: &str) -> bool {
    fail::fail_point!(name, |_| true);
    // The macro is nothing without its feature.
    let _ = name;
    false
}
