//! A PCI driver core in user space.
