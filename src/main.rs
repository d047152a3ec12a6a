//! vfioctl
fn main() {}
