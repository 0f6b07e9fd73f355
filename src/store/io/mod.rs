//! How bytes come from files: mappings, with a guard against files that shrink under them, and
//! reads into private buffers, which a few methods cover: submit, wait.

pub mod buffer;
#[cfg(any(target_os = "linux", target_os = "macos"))]
mod guard;
pub mod mmap;
#[cfg(target_os = "macos")]
mod nocache;
mod open;
mod pread;
#[cfg(target_os = "linux")]
mod uring;
#[cfg(windows)]
mod windows;

use std::io;

use crate::error::Result;
use buffer::{Buffer, Target};

pub use open::opener;

/// One read.
pub struct Read {
    /// Told apart by whoever submits it.
    pub tag: u64,
    /// Index of the file.
    pub part: u32,
    /// First byte in the file.
    pub offset: u64,
    /// Where the bytes go, and how many.
    pub target: Target,
}

/// A read that is over.
pub struct Done {
    /// As it was submitted.
    pub read: Read,
    /// Bytes that were read, from the first on.
    pub result: io::Result<usize>,
}

/// Reads files. Used by one thread, on which it was made.
pub trait Io {
    /// `io_uring direct`, `pread buffered` ...
    fn name(&self) -> &str;

    /// Reads that may be on their way at a time.
    fn depth(&self) -> usize;

    /// Starts a read. It comes back from `wait`, whatever becomes of it.
    fn submit(&mut self, read: Read);

    /// Waits for any read that was submitted; none if there is none.
    fn wait(&mut self) -> Option<Done>;

    /// Gives up what has not begun; that comes back as an error.
    fn cancel(&mut self);
}

/// A way to read, and why it is not the one that was asked for.
pub struct Opened {
    /// The way.
    pub io: Box<dyn Io>,
    /// Why not a better one.
    pub reason: Option<String>,
}

/// Makes a way to read on the thread that will use it; shown the buffers that are used most. Asked
/// again when those are replaced.
pub type Opener = Box<dyn FnMut(&mut [Buffer]) -> Result<Opened> + Send>;

/// Systems where a mapped file cannot be truncated (Windows refuses to), or where no guard exists.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
mod guard {
    /// Watches nothing.
    pub struct Guard;

    impl Guard {
        /// A guard that is never hit.
        pub fn new(_: &[u8]) -> crate::error::Result<Self> {
            Ok(Guard)
        }

        /// Never.
        pub fn is_hit(&self) -> bool {
            false
        }
    }
}
