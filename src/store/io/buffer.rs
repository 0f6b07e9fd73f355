//! Private memory for weights, on huge pages where the system has them. A buffer is written only
//! while it is lent: [`Buffer::lend`] splits it into targets that do not overlap, and it can be
//! read again once all of them are gone.
#![allow(unsafe_code, reason = "several reads write to one buffer at a time")]

use std::alloc::Layout;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::error::{Code, Error, Result};
use crate::plan::residency::ALIGN;

/// A huge page of x86-64 and most ARM systems.
#[cfg(target_os = "linux")]
pub(super) const HUGE: usize = 2 << 20;

/// Memory that is given back when nobody has it.
struct Memory {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: it owns its bytes; who may touch which of them is told by `Buffer` and `Target`.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        // SAFETY: mapped in `Buffer::new` with this length, and nobody has it any more.
        unsafe {
            libc::munmap(self.start.as_ptr().cast(), self.layout.size());
        }
        #[cfg(not(target_os = "linux"))]
        // SAFETY: allocated in `Buffer::new` with this layout.
        unsafe {
            std::alloc::dealloc(self.start.as_ptr(), self.layout);
        }
    }
}

/// Bytes that nobody writes to.
pub struct Buffer {
    memory: Arc<Memory>,
    /// Index among the buffers that the kernel knows.
    pub(super) registered: Option<u16>,
    /// Never written to: the system has not made its pages yet.
    is_new: bool,
}

/// A buffer that is being written to.
pub struct Lent(Buffer);

/// The right to write to some bytes of a lent buffer.
pub struct Target {
    memory: Arc<Memory>,
    start: usize,
    bytes: usize,
    /// As the buffer's.
    pub(super) registered: Option<u16>,
}

impl Buffer {
    /// Zeros, aligned for direct reads.
    ///
    /// # Errors
    /// `ERR_INSUFFICIENT_MEMORY`.
    pub fn new(bytes: u64) -> Result<Self> {
        let refused = || {
            Error::new(Code::InsufficientMemory, format!("ram: the system refused {bytes} bytes"))
                .with("memory", "ram")
                .with("required", bytes)
                .with("available", 0u64)
        };
        let size = usize::try_from(bytes.max(ALIGN)).map_err(|_| refused())?;
        let layout = Layout::from_size_align(size, ALIGN as usize).map_err(|_| refused())?;
        let start = allocate(layout).ok_or_else(refused)?;
        Ok(Buffer { memory: Arc::new(Memory { start, layout }), registered: None, is_new: true })
    }

    /// Whether it was never lent: the system makes its pages when they are written to.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Opens it for writing.
    #[must_use]
    pub fn lend(self) -> (Lent, Target) {
        let target = Target {
            memory: self.memory.clone(),
            start: 0,
            bytes: self.memory.layout.size(),
            registered: self.registered,
        };
        (Lent(self), target)
    }
}

/// Pages of the kernel, on huge pages as far as whole ones fit: reading around the page cache into
/// those is twice as fast as into small ones, since a read is few pieces then.
#[cfg(target_os = "linux")]
fn allocate(layout: Layout) -> Option<NonNull<u8>> {
    let size = layout.size();
    let slack = if size >= HUGE { HUGE } else { 0 };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let all = size.checked_add(slack)?;
    // SAFETY: a new anonymous mapping touches nothing that exists.
    let mapped = unsafe { libc::mmap(std::ptr::null_mut(), all, protection, flags, -1, 0) };
    if mapped == libc::MAP_FAILED {
        return None;
    }
    let before = if slack == 0 { 0 } else { mapped.align_offset(HUGE) };
    let start = mapped.cast::<u8>().wrapping_add(before);
    let page = ALIGN as usize;
    let end = (before + size).div_ceil(page) * page;
    // SAFETY: both ends of the mapping above, which nobody knows yet; the advice changes no data,
    // and a refusal of it costs nothing.
    unsafe {
        if before > 0 {
            libc::munmap(mapped, before);
        }
        if end < all {
            libc::munmap(mapped.cast::<u8>().wrapping_add(end).cast(), all - end);
        }
        if size >= HUGE {
            libc::madvise(start.cast(), size, libc::MADV_HUGEPAGE);
        }
    }
    NonNull::new(start)
}

#[cfg(not(target_os = "linux"))]
fn allocate(layout: Layout) -> Option<NonNull<u8>> {
    // SAFETY: the layout is not empty.
    NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) })
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: zeroed or written bytes. A buffer exists only while no target does: `lend` takes
        // it, and `take_back` returns it when the last target is gone.
        unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr(), self.memory.layout.size()) }
    }
}

impl Lent {
    /// The buffer, if no target is left.
    ///
    /// # Errors
    /// Itself, if one is.
    pub fn take_back(mut self) -> Result<Buffer, Lent> {
        match Arc::get_mut(&mut self.0.memory) {
            Some(_) => Ok(Buffer { is_new: false, ..self.0 }),
            None => Err(self),
        }
    }
}

impl Target {
    /// Bytes that it may write.
    pub fn size(&self) -> usize {
        self.bytes
    }

    /// Bytes of the buffer.
    pub fn whole(&self) -> usize {
        self.memory.layout.size()
    }

    /// Where in the buffer it begins.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Cuts it after `at` bytes: the first part stays here, the second is returned.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Target {
        let at = at.min(self.bytes);
        let rest = Target {
            memory: self.memory.clone(),
            start: self.start + at,
            bytes: self.bytes - at,
            registered: self.registered,
        };
        self.bytes = at;
        rest
    }

    /// Its bytes.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: targets of a buffer do not overlap, this one is borrowed mutably, and the buffer
        // itself cannot be read while there is a target.
        unsafe {
            std::slice::from_raw_parts_mut(self.memory.start.as_ptr().add(self.start), self.bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_readable_again_when_its_last_target_is_gone() {
        let buffer = Buffer::new(10_000).expect("memory");
        let (lent, mut first) = buffer.lend();
        let mut second = first.split_off(4096);
        assert_eq!((first.size(), second.size(), second.start()), (4096, 5904, 4096));
        first.bytes_mut().fill(1);
        second.bytes_mut().fill(2);
        drop(first);
        let lent = lent.take_back().err().expect("one is left");
        drop(second);
        let buffer = lent.take_back().ok().expect("none is left");
        assert!(buffer[..4096].iter().all(|b| *b == 1) && buffer[4096..].iter().all(|b| *b == 2));
        assert!(Buffer::new(u64::MAX / 2).is_err());
    }
}
