//! Checked sequential reads of a header: every length is compared with what is left before
//! anything is reserved. It knows bytes and positions, not what they mean.

use std::fmt;
use std::io::{self, Read};

use crate::error::{Code, Error};

use super::source::errno;

/// A header may have that many bytes, so that a sparse file cannot ask for all memory. The largest
/// vocabularies take 20 MB.
pub(super) const HEADER_BYTES_MAX: u64 = 512 << 20;

/// Bytes that one read asks for at most.
const CHUNK_BYTES: usize = 1 << 20;

/// What can go wrong in a file, before the file's name and the key or tensor are added to it.
#[derive(Debug)]
pub(super) enum Fault {
    /// The bytes make no sense.
    Corrupt { byte: u64, what: String },
    /// The operating system failed to read.
    Read { byte: u64, errno: String },
    /// Memory that the file justifies is not to be had.
    Memory { bytes: u64 },
    /// Another failure with a code of its own.
    Other { code: Code, byte: u64, what: String },
}

impl Fault {
    /// The error for a caller; `place` is the key or tensor, where there is one.
    pub(super) fn error(self, path: &str, place: Option<&dyn fmt::Display>) -> Error {
        let at = |byte: u64| match place {
            Some(place) => format!("{place} at byte {byte}"),
            None => format!("byte {byte}"),
        };
        match self {
            Fault::Corrupt { byte, what } => Error::at(Code::GgufCorrupt, path, at(byte), what),
            Fault::Other { code, byte, what } => Error::at(code, path, at(byte), what),
            Fault::Read { byte, errno } => {
                let what = format!("reading failed ({errno})");
                Error::at(Code::Io, path, at(byte), what).with("errno", errno)
            }
            Fault::Memory { bytes } => {
                let text = format!("the header needs {bytes} bytes more, which the system denies");
                Error::new(Code::InsufficientMemory, text)
                    .with("memory", "ram")
                    .with("required", bytes)
                    .with("available", 0_u64)
            }
        }
    }
}

/// A position in a header of known length.
pub(super) struct Cursor<R> {
    reader: R,
    byte: u64,
    file_bytes: u64,
}

impl<R: Read> Cursor<R> {
    /// Starts at the first byte of a file of `file_bytes` bytes.
    pub(super) fn new(reader: R, file_bytes: u64) -> Self {
        Cursor { reader, byte: 0, file_bytes }
    }

    /// Where the next byte comes from.
    pub(super) fn byte(&self) -> u64 {
        self.byte
    }

    /// Bytes that may still be read.
    pub(super) fn left(&self) -> u64 {
        self.file_bytes.min(HEADER_BYTES_MAX).saturating_sub(self.byte)
    }

    /// A fault at the position.
    pub(super) fn corrupt(&self, what: impl Into<String>) -> Fault {
        Fault::Corrupt { byte: self.byte, what: what.into() }
    }

    /// `N` bytes.
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.fits(N as u64, "the file ends in the middle of a value")?;
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// A little-endian u32.
    pub(super) fn u32(&mut self) -> Result<u32, Fault> {
        self.take().map(u32::from_le_bytes)
    }

    /// A little-endian u64.
    pub(super) fn u64(&mut self) -> Result<u64, Fault> {
        self.take().map(u64::from_le_bytes)
    }

    /// A string: its length as u64, then the bytes, of which there may be `bytes_max`.
    pub(super) fn string(&mut self, what: &str, bytes_max: u64) -> Result<Vec<u8>, Fault> {
        let mut out = Vec::new();
        self.string_into(&mut out, what, bytes_max)?;
        Ok(out)
    }

    /// Appends a string to others.
    pub(super) fn string_into(
        &mut self,
        out: &mut Vec<u8>,
        what: &str,
        bytes_max: u64,
    ) -> Result<(), Fault> {
        let start = self.byte;
        let bytes = self.u64()?;
        if bytes > self.left() {
            let what = format!("{what} of {bytes} bytes; the file has {} more", self.left());
            return Err(Fault::Corrupt { byte: start, what });
        }
        if bytes > bytes_max {
            let what = format!("{what} of {bytes} bytes; at most {bytes_max} are allowed");
            return Err(Fault::Corrupt { byte: start, what });
        }
        self.append(out, bytes)
    }

    /// `count` numbers of `N` bytes each.
    pub(super) fn numbers<T, const N: usize>(
        &mut self,
        count: u64,
        from: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, Fault> {
        let bytes = count.saturating_mul(N as u64);
        self.fits(bytes, "an array goes on beyond the end of the file")?;
        let count = usize::try_from(count).map_err(|_| Fault::Memory { bytes })?;
        let mut out = Vec::new();
        out.try_reserve_exact(count).map_err(|_| Fault::Memory { bytes })?;
        let per_chunk = CHUNK_BYTES.checked_div(N).unwrap_or(1);
        let mut buffer = vec![0; per_chunk.min(count).saturating_mul(N)];
        while out.len() < count {
            let wanted = count.saturating_sub(out.len()).min(per_chunk).saturating_mul(N);
            let chunk = buffer.get_mut(..wanted).unwrap_or_default();
            self.fill(chunk)?;
            out.extend(chunk.as_chunks::<N>().0.iter().map(|bytes| from(*bytes)));
        }
        Ok(out)
    }

    /// Appends `bytes` bytes, which are known to be left.
    fn append(&mut self, out: &mut Vec<u8>, bytes: u64) -> Result<(), Fault> {
        let count = usize::try_from(bytes).map_err(|_| Fault::Memory { bytes })?;
        let start = out.len();
        // A single string is sized exactly; one of many lets the blob grow by doubling.
        let reserved =
            if start == 0 { out.try_reserve_exact(count) } else { out.try_reserve(count) };
        reserved.map_err(|_| Fault::Memory { bytes })?;
        let mut left = count;
        while left > 0 {
            let step = left.min(CHUNK_BYTES);
            let from = out.len();
            out.resize(from.saturating_add(step), 0);
            self.fill(out.get_mut(from..).unwrap_or_default())?;
            left = left.saturating_sub(step);
        }
        Ok(())
    }

    fn fits(&self, bytes: u64, what: &str) -> Result<(), Fault> {
        if bytes <= self.left() {
            return Ok(());
        }
        if self.byte.saturating_add(bytes) <= self.file_bytes {
            let what = format!("the header has more than {HEADER_BYTES_MAX} bytes");
            return Err(self.corrupt(what));
        }
        Err(self.corrupt(format!("{what}: {bytes} bytes wanted, {} are left", self.left())))
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<(), Fault> {
        match self.reader.read_exact(out) {
            Ok(()) => {
                self.byte = self.byte.saturating_add(out.len() as u64);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(self.corrupt("the file became shorter while it was read"))
            }
            Err(error) => Err(Fault::Read { byte: self.byte, errno: errno(&error) }),
        }
    }
}

/// Grows a list whose items were read already; memory follows what the file really holds.
pub(super) fn push<T>(list: &mut Vec<T>, item: T) -> Result<(), Fault> {
    let bytes = list.len().saturating_mul(size_of::<T>()) as u64;
    list.try_reserve(1).map_err(|_| Fault::Memory { bytes })?;
    list.push(item);
    Ok(())
}
