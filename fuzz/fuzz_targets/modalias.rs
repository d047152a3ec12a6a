// SPDX-License-Identifier: MIT OR Apache-2.0
#![no_main]
#![allow(missing_docs)]

use std::ffi::CString;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    vfioctl_fuzz::modalias(data);
    as_the_c_library(data);
});

/// The plain words mean what fnmatch(3) means, which kmod asks. It knows classes such as `[:alpha:]`, which kmod's
/// brackets leave no room for.
fn as_the_c_library(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some((key, patterns)) = text.split_once('\n') else { return };
    for pattern in patterns.lines() {
        let Some(plain) = vfioctl_fuzz::in_plain_words(pattern) else { continue };
        let (Ok(asked), Ok(key)) = (CString::new(plain.normalised.clone()), CString::new(key)) else { continue };
        if ["[:", "[.", "[="].iter().any(|class| pattern.contains(class)) {
            continue;
        }
        // SAFETY: two C strings, which are only read.
        let expected = unsafe { libc::fnmatch(asked.as_ptr(), key.as_ptr(), 0) } == 0;
        assert_eq!(plain.matches(key.as_bytes()), expected, "{asked:?} {key:?}");
    }
}
