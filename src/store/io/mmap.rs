//! Read-only mappings of model files. A file that shrinks or is rewritten while it is mapped shows
//! up as an error of `check`, never as a signal; see `guard.rs`. How pages are used is not said:
//! the default read-ahead suits weights that are read in file order, and hints for a whole model
//! would evict other programs' pages.
#![allow(unsafe_code, reason = "mapping a file is unsafe in itself")]

use std::fs;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use memmap2::{Mmap, MmapOptions};

use crate::error::{Code, Error, Result, shown};
use crate::gguf::{Part, errno};

use super::guard::Guard;

/// A range of a file in the address space.
pub struct Mapping {
    /// Dropped before the map, so that it never watches addresses that are somebody else's.
    guard: Guard,
    map: Mmap,
    /// Where in the file the map begins.
    offset: u64,
    file: Arc<fs::File>,
    path: String,
    state: State,
}

/// What tells a changed file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Length.
    pub bytes: u64,
    written: Option<SystemTime>,
}

impl Mapping {
    /// Maps a range of a part that is not empty.
    pub fn new(part: &Part, range: Range<u64>) -> Result<Self> {
        let path = part.path.to_string_lossy().into_owned();
        let place = format!("byte {}", range.start);
        let failed = |error: std::io::Error| {
            let errno = errno(&error);
            let what = format!("mapping {} bytes failed ({errno})", range.end - range.start);
            Error::at(Code::Io, &path, &place, what).with("errno", errno)
        };
        let state = State::of(&part.file).map_err(failed)?;
        if state.bytes != part.bytes {
            return Err(changed(&path));
        }
        if range.end > state.bytes || range.is_empty() {
            return Err(Error::internal("store::io", "a range outside of its file"));
        }
        let bytes = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut options = MmapOptions::new();
        options.offset(range.start).len(bytes);
        // SAFETY: the map is read-only and lies inside the file as of now. That others may write
        // to the file meanwhile cannot be ruled out; all readers treat the bytes as plain data,
        // any of which is valid, and a file that ends early is turned into zeros by the guard.
        let map = unsafe { options.map(&*part.file) }.map_err(failed)?;
        // What is not cached yet is then read and mapped 2 MiB at a time, where the file system
        // can. Two threads of a virtual machine sum a file at 77 % of the rate of such pages if it
        // lies in 4 KiB pages (90 % while memory is slow), at 100 % if in these. Only speed depends
        // on it.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        let guard = Guard::new(&map)?;
        Ok(Mapping { guard, map, offset: range.start, file: part.file.clone(), path, state })
    }

    /// Bytes mapped.
    pub fn bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// `bytes` bytes of the file from `offset` on, if they are mapped.
    pub fn slice(&self, offset: u64, bytes: u64) -> Option<&[u8]> {
        let start = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        let end = start.checked_add(usize::try_from(bytes).ok()?)?;
        self.map.get(start..end)
    }

    /// Whether all that was read so far was really there.
    pub fn check(&self) -> Result<()> {
        if !self.guard.is_hit() {
            return Ok(());
        }
        // Pages are missing because the file is shorter now, or because reading failed.
        self.check_file()?;
        let place = format!("byte {}", self.offset);
        Err(Error::at(Code::Io, &self.path, place, "reading failed (EIO)").with("errno", "EIO"))
    }

    /// Whether the file has the length and the time that it had when it was mapped.
    pub fn check_file(&self) -> Result<()> {
        match State::of(&self.file) {
            Ok(state) if state == self.state => Ok(()),
            _ => Err(changed(&self.path)),
        }
    }
}

impl State {
    /// As it is now.
    pub fn of(file: &fs::File) -> std::io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(State { bytes: metadata.len(), written: metadata.modified().ok() })
    }
}

/// `ERR_FILE_CHANGED`.
pub fn changed(path: &str) -> Error {
    let path = shown(path);
    let text = format!("{path} changed while it was loaded; close the model and load it again");
    Error::new(Code::FileChanged, text).with("path", path)
}
