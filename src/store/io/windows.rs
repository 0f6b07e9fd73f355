//! Windows: overlapped reads around the system's cache, which come back through a completion port.
//! Files are opened again by their handles, since a name may be another file's by now.
#![allow(unsafe_code, reason = "the system writes to memory behind the compiler's back")]

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::ptr::{NonNull, null, null_mut};
use std::sync::Arc;

use windows_sys::Win32::Foundation::{ERROR_HANDLE_EOF, ERROR_IO_PENDING, INVALID_HANDLE_VALUE};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_FLAG_NO_BUFFERING, FILE_FLAG_OVERLAPPED, FILE_GENERIC_READ, FILE_SHARE_DELETE,
    FILE_SHARE_READ, FILE_SHARE_WRITE, ReOpenFile, ReadFile,
};
use windows_sys::Win32::System::IO::{
    CancelIoEx, CreateIoCompletionPort, GetQueuedCompletionStatus, OVERLAPPED, OVERLAPPED_0,
    OVERLAPPED_0_0,
};
use windows_sys::Win32::System::Threading::INFINITE;

use super::{Done, Io, Read};

/// Reads on their way at most.
const DEPTH: usize = 32;

/// Files with one port for all.
pub struct Overlapped {
    port: OwnedHandle,
    files: Vec<OwnedHandle>,
    /// Reads that the system works on; they are back when the port has given them.
    pending: usize,
    /// Reads that the system refused.
    refused: VecDeque<Done>,
}

/// A read on its way. The system gives back the address of its first field.
#[repr(C)]
struct Flight {
    overlapped: OVERLAPPED,
    read: Read,
}

impl Overlapped {
    /// Opens files once more, unbuffered.
    ///
    /// # Errors
    /// The system's, on a volume that knows no such reads.
    pub fn new(files: &[Arc<File>]) -> io::Result<Self> {
        // SAFETY: a new port that belongs to no file yet.
        let port = unsafe { CreateIoCompletionPort(INVALID_HANDLE_VALUE, null_mut(), 0, 1) };
        if port.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: nobody else has the handle.
        let port = unsafe { OwnedHandle::from_raw_handle(port) };
        let files = files.iter().map(|file| reopen(file, &port));
        let files = files.collect::<io::Result<Vec<_>>>()?;
        Ok(Overlapped { port, files, pending: 0, refused: VecDeque::new() })
    }
}

/// Another handle of a file, unbuffered, whose reads come back through a port.
fn reopen(file: &File, port: &OwnedHandle) -> io::Result<OwnedHandle> {
    let share = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;
    let flags = FILE_FLAG_NO_BUFFERING | FILE_FLAG_OVERLAPPED;
    // SAFETY: the handle is open as long as `file` is borrowed.
    let handle = unsafe { ReOpenFile(file.as_raw_handle(), FILE_GENERIC_READ, share, flags) };
    if handle == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: nobody else has the handle.
    let handle = unsafe { OwnedHandle::from_raw_handle(handle) };
    // SAFETY: both handles are open.
    let joined =
        unsafe { CreateIoCompletionPort(handle.as_raw_handle(), port.as_raw_handle(), 0, 0) };
    if joined.is_null() { Err(io::Error::last_os_error()) } else { Ok(handle) }
}

/// A place in a file, as the system wants it.
fn overlapped(offset: u64) -> OVERLAPPED {
    let (low, high) = ((offset & u64::from(u32::MAX)) as u32, (offset >> 32) as u32);
    let place = OVERLAPPED_0_0 { Offset: low, OffsetHigh: high };
    let (zero, event) = (0, null_mut());
    let place = OVERLAPPED_0 { Anonymous: place };
    OVERLAPPED { Internal: zero, InternalHigh: zero, Anonymous: place, hEvent: event }
}

/// What a failed call means: nothing beyond the end of a file, or an error.
fn failure() -> io::Result<usize> {
    let error = io::Error::last_os_error();
    let is_end = error.raw_os_error() == Some(ERROR_HANDLE_EOF.cast_signed());
    if is_end { Ok(0) } else { Err(error) }
}

impl Io for Overlapped {
    fn name(&self) -> &str {
        "overlapped direct"
    }

    fn depth(&self) -> usize {
        DEPTH
    }

    fn submit(&mut self, read: Read) {
        let Some(file) = self.files.get(read.part as usize) else {
            let result = Err(io::Error::from(io::ErrorKind::NotFound));
            return self.refused.push_back(Done { read, result });
        };
        let flight = Box::new(Flight { overlapped: overlapped(read.offset), read });
        let flight = NonNull::from(Box::leak(flight));
        // SAFETY: nobody but this function has the address yet.
        let bytes = unsafe { (*flight.as_ptr()).read.target.bytes_mut() };
        let (start, len) = (bytes.as_mut_ptr(), bytes.len() as u32);
        let place = flight.as_ptr().cast();
        // SAFETY: the memory belongs to the target, which lives in `flight` until the port has
        // given it back; so does the OVERLAPPED, the first field of it.
        let done = unsafe { ReadFile(file.as_raw_handle(), start, len, null_mut(), place) };
        let is_pending = || {
            let error = io::Error::last_os_error().raw_os_error();
            error == Some(ERROR_IO_PENDING.cast_signed())
        };
        // What is done at once comes through the port, too.
        if done != 0 || is_pending() {
            self.pending += 1;
            return;
        }
        let result = failure();
        // SAFETY: leaked above, and the system has refused it.
        let flight = unsafe { Box::from_raw(flight.as_ptr()) };
        self.refused.push_back(Done { read: flight.read, result });
    }

    fn wait(&mut self) -> Option<Done> {
        if let Some(done) = self.refused.pop_front() {
            return Some(done);
        }
        if self.pending == 0 {
            return None;
        }
        let (mut bytes, mut key, mut place) = (0, 0, null_mut());
        let port = self.port.as_raw_handle();
        // SAFETY: the port is open, and the three places are this function's.
        let came =
            unsafe { GetQueuedCompletionStatus(port, &mut bytes, &mut key, &mut place, INFINITE) };
        let result = if came != 0 { Ok(bytes as usize) } else { failure() };
        let flight = NonNull::new(place)?.cast::<Flight>();
        self.pending -= 1;
        // SAFETY: leaked in `submit`, and the system is done with it.
        let flight = unsafe { Box::from_raw(flight.as_ptr()) };
        Some(Done { read: flight.read, result })
    }

    fn cancel(&mut self) {
        for file in &self.files {
            // SAFETY: the handle is open. What is cancelled comes back through the port.
            unsafe { CancelIoEx(file.as_raw_handle(), null()) };
        }
    }
}

impl Drop for Overlapped {
    fn drop(&mut self) {
        self.cancel();
        while self.wait().is_some() {}
    }
}
