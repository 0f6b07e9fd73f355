//! Numbers in aligned memory: allocation may fail, large ones ask for huge pages.

use crate::error::{Code, Error, Result};
use std::alloc::{Layout, alloc, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A huge page of x86-64 and most ARM systems.
const HUGE: usize = 2 << 20;

/// Types of which every bit pattern is a value, zero bits among them.
///
/// # Safety
/// Just that.
pub unsafe trait Plain: Copy + 'static {}
// SAFETY: numbers.
unsafe impl Plain for f32 {}
// SAFETY: numbers.
unsafe impl Plain for i16 {}
// SAFETY: numbers.
unsafe impl Plain for i8 {}
// SAFETY: numbers.
unsafe impl Plain for u8 {}
// SAFETY: numbers.
unsafe impl Plain for i32 {}

/// A fixed number of values, aligned to 64 bytes, zero at first.
pub struct Buffer<T: Plain> {
    start: NonNull<T>,
    len: usize,
    layout: Option<Layout>,
}

// SAFETY: it owns its numbers.
unsafe impl<T: Plain + Send> Send for Buffer<T> {}
// SAFETY: shared access only reads.
unsafe impl<T: Plain + Sync> Sync for Buffer<T> {}

impl<T: Plain> Default for Buffer<T> {
    fn default() -> Self {
        Buffer { start: NonNull::dangling(), len: 0, layout: None }
    }
}

impl<T: Plain> Buffer<T> {
    /// `len` zeros.
    ///
    /// # Errors
    /// `ERR_INSUFFICIENT_MEMORY`.
    pub fn new(len: usize) -> Result<Self> {
        let bytes = len.checked_mul(size_of::<T>()).filter(|n| *n <= isize::MAX as usize - HUGE);
        let refused = || {
            let text = format!("no memory for {len} values of the CPU backend");
            Error::new(Code::InsufficientMemory, text)
                .with("neededBytes", bytes.unwrap_or(usize::MAX))
        };
        let bytes = bytes.ok_or_else(refused)?;
        if bytes == 0 {
            return Ok(Buffer::default());
        }
        let align = if bytes >= HUGE { HUGE } else { 64 };
        let layout = Layout::from_size_align(bytes, align).map_err(|_| refused())?;
        // SAFETY: the layout is not empty.
        let start = NonNull::new(unsafe { alloc(layout) }).ok_or_else(refused)?;
        if bytes >= HUGE {
            advise_huge(start, bytes);
        }
        // SAFETY: `bytes` bytes were allocated, and zero bits are values of T.
        unsafe { start.write_bytes(0, bytes) };
        Ok(Buffer { start: start.cast(), len, layout: Some(layout) })
    }

    /// At least `len` values: as it is if long enough, else a new one of zeros.
    ///
    /// # Errors
    /// `ERR_INSUFFICIENT_MEMORY`; it is empty then.
    pub fn grow(&mut self, len: usize) -> Result<()> {
        if len > self.len {
            *self = Buffer::default();
            *self = Buffer::new(len)?;
        }
        Ok(())
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// The first value, for who keeps apart by himself what threads touch.
    #[must_use]
    pub fn start(&self) -> *mut T {
        self.start.as_ptr()
    }
}

/// Huge pages make TLB misses rare; a refusal costs nothing.
fn advise_huge(start: NonNull<u8>, bytes: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: whole huge pages inside memory that was just allocated; the advice changes no data.
    unsafe {
        libc::madvise(start.as_ptr().cast(), bytes / HUGE * HUGE, libc::MADV_HUGEPAGE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, bytes);
}

impl<T: Plain> Drop for Buffer<T> {
    fn drop(&mut self) {
        if let Some(layout) = self.layout {
            // SAFETY: allocated in `new` with this layout.
            unsafe { dealloc(self.start.as_ptr().cast(), layout) };
        }
    }
}

impl<T: Plain> Deref for Buffer<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        // SAFETY: `len` initialised values, or dangling and 0.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Plain> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: `len` initialised values, or dangling and 0; borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_zero_and_refuse_the_impossible() {
        for len in [0, 1, 17, 1 << 20] {
            let buffer = Buffer::<f32>::new(len).unwrap();
            assert!(buffer.len() == len && buffer.iter().all(|x| x.to_bits() == 0));
            assert!(len == 0 || buffer.as_ptr().addr().is_multiple_of(64));
        }
        let refused = Buffer::<f32>::new(usize::MAX / 8).err().unwrap();
        assert_eq!(refused.code, Code::InsufficientMemory);
    }
}
