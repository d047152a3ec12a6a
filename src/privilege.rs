// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether this program was given more rights than whoever started it has. It is written for root, and believes its arguments
//! and its environment: to others it must not lend root's rights.

use std::fs;
use std::io;

use rustix::process::{getegid, geteuid, getgid, getuid};

/// `AT_SECURE` (getauxval(3)): set by the kernel for what is set-user-ID, set-group-ID or has capabilities of its file.
const AT_SECURE: usize = 23;

/// Was it?
pub fn is_lent() -> bool {
    getuid() != geteuid() || getgid() != getegid() || is_secure(fs::read("/proc/self/auxv"))
}

fn is_secure(vector: io::Result<Vec<u8>>) -> bool {
    match vector {
        Ok(bytes) => words(&bytes).chunks_exact(2).any(|pair| pair[0] == AT_SECURE && pair[1] != 0),
        // The kernel keeps it from a process that has capabilities of its file (`fs/exec.c`, `begin_new_exec`).
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}

fn words(bytes: &[u8]) -> Vec<usize> {
    let word = |bytes: &[u8]| usize::from_ne_bytes(bytes.try_into().expect("as long as a word"));
    bytes.chunks_exact(size_of::<usize>()).map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_word_counts() {
        let vector = |words: &[usize]| Ok(words.iter().flat_map(|word| word.to_ne_bytes()).collect());
        for (vector, expected) in [
            (vector(&[6, 4096, AT_SECURE, 0, 0, 0]), false),
            (vector(&[6, 4096, AT_SECURE, 1, 0, 0]), true),
            (vector(&[6, AT_SECURE, 11, 1, 0, 0]), false),
            (vector(&[]), false),
            (Err(io::ErrorKind::PermissionDenied.into()), true),
            (Err(io::ErrorKind::NotFound.into()), false),
        ] {
            assert_eq!(is_secure(vector), expected);
        }
        assert!(!is_lent(), "the tests are not set-user-ID");
    }
}
