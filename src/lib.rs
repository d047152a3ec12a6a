//! vfioctl
