//! flowshift
fn main() {}
