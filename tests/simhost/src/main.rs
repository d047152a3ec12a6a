//! simhost
fn main() {}
