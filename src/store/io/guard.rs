//! Keeps a truncated file from killing the process. Reading a mapping beyond its file's end raises
//! SIGBUS. One handler, installed once for the process, puts zero pages there and sets a flag if
//! the address lies in a mapping of ours; the flag becomes an error after the group. Every other
//! SIGBUS goes to the handler that stood there before. The handler only loads and stores atomics
//! and calls mmap: no allocation, no lock.
#![allow(unsafe_code, reason = "signal handlers are made of it")]

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use libc::{sigaction, siginfo_t};

use crate::error::{Code, Error, Result};

/// Mappings that may live at a time: one for each part of each loaded model.
const RANGES_MAX: usize = 4096;

/// Addresses from `start` to `end`. `start` is the key: 0 means free, 1 means being filled.
struct Watched {
    start: AtomicUsize,
    end: AtomicUsize,
    is_hit: AtomicBool,
}

const FREE: usize = 0;
const FILLING: usize = 1;

static RANGES: [Watched; RANGES_MAX] = [const {
    Watched {
        start: AtomicUsize::new(FREE),
        end: AtomicUsize::new(0),
        is_hit: AtomicBool::new(false),
    }
}; RANGES_MAX];

/// What was there before us; set before our handler is installed.
static BEFORE: OnceLock<sigaction> = OnceLock::new();
static PAGE_BYTES: AtomicUsize = AtomicUsize::new(4096);

/// Watches one mapping while it lives.
pub struct Guard {
    watched: &'static Watched,
}

impl Guard {
    /// Watches a mapping, which must outlive the guard.
    pub fn new(map: &[u8]) -> Result<Self> {
        static INSTALLED: OnceLock<bool> = OnceLock::new();
        if !INSTALLED.get_or_init(install) {
            return Err(Error::internal("store::io", "no handler for SIGBUS"));
        }
        let start = map.as_ptr() as usize;
        let free = |watched: &&Watched| {
            let order = Ordering::AcqRel;
            watched.start.compare_exchange(FREE, FILLING, order, Ordering::Relaxed).is_ok()
        };
        let Some(watched) = RANGES.iter().find(free) else {
            let text = format!("more than {RANGES_MAX} mapped files; close some models");
            return Err(Error::new(Code::Unsupported, text).with("feature", "mapped files"));
        };
        watched.end.store(start + map.len(), Ordering::Relaxed);
        watched.is_hit.store(false, Ordering::Relaxed);
        watched.start.store(start, Ordering::Release);
        Ok(Guard { watched })
    }

    /// Whether bytes were read that the file does not have.
    pub fn is_hit(&self) -> bool {
        self.watched.is_hit.load(Ordering::Acquire)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.watched.start.store(FREE, Ordering::Release);
    }
}

fn install() -> bool {
    // SAFETY: a query without arguments that point anywhere.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    PAGE_BYTES.store(usize::try_from(page).unwrap_or(4096), Ordering::Relaxed);
    let mut before = MaybeUninit::<sigaction>::zeroed();
    // SAFETY: no new action is given and `before` has room for the present one.
    if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), before.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: sigaction has filled it.
    let before = BEFORE.get_or_init(|| unsafe { before.assume_init() });
    let mut action = *before;
    action.sa_sigaction = on_bus as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: the mask is ours to empty.
    unsafe { libc::sigemptyset(&raw mut action.sa_mask) };
    // SAFETY: `on_bus` has the signature that SA_SIGINFO asks for and lives as long as the code.
    unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) == 0 }
}

extern "C" fn on_bus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands a valid siginfo to a handler with SA_SIGINFO.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // Codes of faults; what a process sends has 0 or less, on macOS 0x10001 and more.
    let is_fault = (1..0x1000).contains(&code);
    let errno = errno_place();
    // SAFETY: errno belongs to this thread.
    let saved = unsafe { *errno };
    if !(is_fault && heal(address)) {
        forward(signal, info, context, is_fault);
    }
    // SAFETY: as above.
    unsafe { *errno = saved };
}

/// Puts zeros over what is left of the mapping that has this address; `false` if none of ours has.
fn heal(address: usize) -> bool {
    for watched in &RANGES {
        let start = watched.start.load(Ordering::Acquire);
        let end = watched.end.load(Ordering::Relaxed);
        if start <= FILLING || !(start..end).contains(&address) {
            continue;
        }
        let page_bytes = PAGE_BYTES.load(Ordering::Relaxed);
        let from = address / page_bytes * page_bytes;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
        // All that follows at once: page by page, a large file would exhaust the kernel's table.
        // SAFETY: from the page of `address` to the end lies a mapping that we own (the reader
        // borrows it, so it cannot be gone) and that nobody writes to.
        let zeros =
            unsafe { libc::mmap(from as *mut c_void, end - from, libc::PROT_READ, flags, -1, 0) };
        if zeros == libc::MAP_FAILED {
            return false;
        }
        watched.is_hit.store(true, Ordering::Release);
        return true;
    }
    false
}

/// Does what would have happened without us.
fn forward(signal: c_int, info: *mut siginfo_t, context: *mut c_void, is_fault: bool) {
    type Plain = extern "C" fn(c_int);
    type Detailed = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
    let Some(before) = BEFORE.get() else { return };
    match before.sa_sigaction {
        // A fault cannot be ignored: the kernel kills then, too.
        libc::SIG_IGN if !is_fault => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            let mut action = *before;
            action.sa_sigaction = libc::SIG_DFL;
            action.sa_flags = 0;
            // SAFETY: a valid action. On return the faulting read runs again and is fatal.
            unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
            if !is_fault {
                // SAFETY: sends to this thread; delivered when the handler returns.
                unsafe { libc::raise(signal) };
            }
        }
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
            // SAFETY: whoever installed it with SA_SIGINFO gave a function of this type.
            let handler = unsafe { std::mem::transmute::<usize, Detailed>(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: whoever installed it without SA_SIGINFO gave a function of this type.
            let handler = unsafe { std::mem::transmute::<usize, Plain>(handler) };
            handler(signal);
        }
    }
}

#[cfg(target_os = "linux")]
fn errno_place() -> *mut c_int {
    // SAFETY: always valid for the calling thread.
    unsafe { libc::__errno_location() }
}

#[cfg(target_os = "macos")]
fn errno_place() -> *mut c_int {
    // SAFETY: always valid for the calling thread.
    unsafe { libc::__error() }
}
