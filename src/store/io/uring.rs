//! io_uring: reads go to the kernel in batches, from registered files into registered buffers. The
//! ring belongs to the thread that made it, which lets the kernel leave out locks and interrupts.
#![allow(unsafe_code, reason = "the kernel writes to memory behind the compiler's back")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use io_uring::types::{CancelBuilder, Fixed};
use io_uring::{IoUring, opcode};

use super::buffer::{Buffer, HUGE};
use super::{Done, Io, Read};

/// Reads on their way at most: a volume behind a network wants many.
const DEPTH: usize = 32;

/// A ring over some files.
pub struct Uring {
    ring: IoUring,
    /// What the kernel is working on, by user data.
    reads: Vec<Option<Read>>,
    /// The files, which must stay open.
    _files: Vec<Arc<File>>,
}

impl Uring {
    /// A ring over files; `buffers` are registered as far as the kernel takes them.
    ///
    /// # Errors
    /// The system's, where there is no io_uring or it is forbidden.
    pub fn new(files: &[Arc<File>], buffers: &mut [Buffer]) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .build(DEPTH as u32)
            .or_else(|_| IoUring::new(DEPTH as u32))?;
        let handles: Vec<_> = files.iter().map(|file| file.as_raw_fd()).collect();
        ring.submitter().register_files(&handles)?;
        register(&ring, buffers);
        let reads = (0..DEPTH).map(|_| None).collect();
        Ok(Uring { ring, reads, _files: files.to_vec() })
    }

    fn pending(&self) -> usize {
        self.reads.iter().flatten().count()
    }
}

/// Lets the kernel pin buffers once instead of at every read: as far as huge pages go, since others
/// among them make it treat all as small ones. A refusal (locked memory is limited) costs a little
/// speed only.
fn register(ring: &IoUring, buffers: &mut [Buffer]) {
    let vectors: Vec<libc::iovec> = buffers
        .iter()
        .map(|buffer| libc::iovec {
            iov_base: buffer.as_ptr().cast_mut().cast(),
            iov_len: known(buffer.len()),
        })
        .collect();
    if vectors.is_empty() || vectors.len() > usize::from(u16::MAX) {
        return;
    }
    // SAFETY: the kernel holds the pages by itself from here on, whatever becomes of the addresses;
    // a buffer that is unmapped is never read into again, since its index goes with it.
    if unsafe { ring.submitter().register_buffers(&vectors) }.is_ok() {
        for (index, buffer) in (0..).zip(buffers) {
            buffer.registered = Some(index);
        }
    }
}

/// Bytes of a buffer that are registered.
fn known(bytes: usize) -> usize {
    if bytes < HUGE { bytes } else { bytes / HUGE * HUGE }
}

impl Io for Uring {
    fn name(&self) -> &str {
        "io_uring direct"
    }

    fn depth(&self) -> usize {
        DEPTH
    }

    fn submit(&mut self, mut read: Read) {
        let Some(slot) = self.reads.iter().position(Option::is_none) else { return };
        let file = Fixed(read.part);
        let end = read.target.start() + read.target.size();
        let registered = read.target.registered.filter(|_| end <= known(read.target.whole()));
        let bytes = read.target.bytes_mut();
        let (start, len) = (bytes.as_mut_ptr(), bytes.len() as u32);
        let entry = match registered {
            Some(index) => {
                opcode::ReadFixed::new(file, start, len, index).offset(read.offset).build()
            }
            None => opcode::Read::new(file, start, len).offset(read.offset).build(),
        };
        let entry = entry.user_data(slot as u64);
        if let Some(place) = self.reads.get_mut(slot) {
            *place = Some(read);
        }
        // SAFETY: the memory belongs to the target, which stays in `reads` until the kernel has
        // said that it is done. The queue has as many entries as `reads`.
        if unsafe { self.ring.submission().push(&entry) }.is_err() {
            debug_assert!(false, "the submission queue has room for every read");
        }
    }

    fn wait(&mut self) -> Option<Done> {
        loop {
            if self.pending() == 0 {
                return None;
            }
            let entry = self.ring.completion().next();
            if let Some(entry) = entry {
                let slot = usize::try_from(entry.user_data()).unwrap_or(usize::MAX);
                let Some(read) = self.reads.get_mut(slot).and_then(Option::take) else { continue };
                let result = match entry.result() {
                    bytes @ 0.. => Ok(bytes.unsigned_abs() as usize),
                    error => Err(io::Error::from_raw_os_error(-error)),
                };
                return Some(Done { read, result });
            }
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The kernel is out of something for a moment.
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                    std::thread::yield_now()
                }
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => std::thread::yield_now(),
                Err(_) => return None,
            }
        }
    }

    fn cancel(&mut self) {
        // What is being read already comes back by itself.
        drop(self.ring.submitter().register_sync_cancel(None, CancelBuilder::any()));
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.cancel();
        while self.wait().is_some() {}
        // Memory that the kernel may still write to is never given back.
        self.reads.drain(..).flatten().for_each(std::mem::forget);
    }
}
