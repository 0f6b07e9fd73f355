//! macOS: tells the system to keep nothing of a file in its cache, and not to read ahead itself.
#![allow(unsafe_code, reason = "the standard library has no such call")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Reads of a file go around the cache from now on.
///
/// # Errors
/// The system's.
pub fn set(file: &File) -> io::Result<()> {
    for (what, value) in [(libc::F_NOCACHE, 1), (libc::F_RDAHEAD, 0)] {
        // SAFETY: the handle is open as long as `file` is borrowed; both take a number.
        if unsafe { libc::fcntl(file.as_raw_fd(), what, value) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
