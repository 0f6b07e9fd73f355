//! The bounds of one rendering and the meter that holds it to them. The meter belongs to the
//! rendering thread: every operator, filter, method and print of a template goes through functions
//! of ours (see `rewrite.rs`), and each asks here before it works, builds or prints.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use minijinja::{Error, ErrorKind, Value};

use super::Clock;

/// Longest source of a template.
pub(super) const SOURCE_BYTES_MAX: usize = 1 << 20;
/// Most tokens of a template: about 30 bytes of syntax tree and 60 of instructions for each.
pub(super) const TOKENS_MAX: usize = 100_000;
/// Longest text that a template may render.
pub(super) const OUTPUT_BYTES_MAX: usize = 16 << 20;
/// Deepest nesting of a value; deeper ones are refused when they are built.
pub(super) const VALUE_DEPTH_MAX: u32 = 100;
/// Deepest syntax tree of one expression, and most nested blocks (an `elif` counts as one).
pub(super) const SYNTAX_DEPTH_MAX: u32 = 400;
/// Stack of the rendering thread, of which only what is touched takes memory. The deepest hostile
/// templates found need 256 to 512 KiB (release build); the rest is margin.
pub(super) const STACK_BYTES: usize = 32 << 20;

/// Strings shorter than this are counted by what holds them.
const STRING_BYTES_COUNTED: usize = 64;

/// What one rendering may use; all grow with the bytes of the context.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Instructions of the virtual machine.
    pub fuel: u64,
    /// Units of work.
    pub work: usize,
    /// Bytes alive at once.
    pub live: usize,
    /// Largest value, measured as a tree.
    pub value: usize,
    /// Bytes printed, captures included.
    pub printed: usize,
}

impl Limits {
    /// Limits for a context of that many bytes.
    pub fn new(context_bytes: usize) -> Self {
        let grown = |base: usize, factor: usize, top: usize| {
            context_bytes.saturating_mul(factor).saturating_add(base).min(top)
        };
        Limits {
            fuel: grown(1_000_000, 50, 100_000_000) as u64,
            work: grown(8_000_000, 64, 400_000_000),
            live: grown(20 << 20, 16, 1 << 30),
            value: grown(8 << 20, 4, 256 << 20),
            printed: grown(20 << 20, 32, 1 << 30),
        }
    }
}

/// Three things are counted: work (about 20 ns a unit; a node visited or 16 bytes moved), bytes
/// alive, and bytes printed (into captures too). Lists and maps are ours and give their bytes back
/// when they are dropped. Strings are minijinja's `Arc<str>`: the meter holds one more reference
/// to each of 64 bytes or more, and forgets those that nobody else holds.
struct Meter {
    limits: Limits,
    clock: Clock,
    work: usize,
    printed: usize,
    /// Bytes of the lists and maps alive.
    held: Arc<AtomicUsize>,
    strings: HashMap<usize, Arc<str>>,
    string_bytes: usize,
    /// The message of `raise_exception`.
    raised: Option<String>,
}

thread_local! {
    static METER: RefCell<Option<Meter>> = const { RefCell::new(None) };
}

/// Starts the meter of this thread.
pub(super) fn start(limits: Limits, clock: Clock) {
    METER.with_borrow_mut(|meter| {
        *meter = Some(Meter {
            limits,
            clock,
            work: 0,
            printed: 0,
            held: Arc::new(AtomicUsize::new(0)),
            strings: HashMap::new(),
            string_bytes: 0,
            raised: None,
        });
    });
}

fn with<T>(act: impl FnOnce(&mut Meter) -> Result<T, Error>) -> Result<T, Error> {
    METER.with_borrow_mut(|meter| match meter {
        Some(meter) => act(meter),
        None => Err(refuse("no rendering is under way")),
    })
}

/// An error with that reason.
pub(super) fn refuse(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason.into())
}

/// Counts work; fails when the rendering has done too much.
pub(super) fn work(units: usize) -> Result<(), Error> {
    with(|meter| {
        meter.work = meter.work.saturating_add(units);
        if meter.work > meter.limits.work {
            return Err(refuse("the template does too much work"));
        }
        Ok(())
    })
}

/// Work of moving or comparing that many bytes.
pub(super) fn work_bytes(bytes: usize) -> Result<(), Error> {
    work((bytes / 16).saturating_add(1))
}

/// Asks for room for a value of that many bytes before it is built.
pub(super) fn room(bytes: usize) -> Result<(), Error> {
    work_bytes(bytes)?;
    with(|meter| {
        let max = meter.limits.value;
        if bytes > max {
            return Err(refuse(format!("a value would exceed {max} bytes")));
        }
        if meter.live().saturating_add(bytes) > meter.limits.live {
            meter.sweep()?;
            if meter.live().saturating_add(bytes) > meter.limits.live {
                let max = meter.limits.live;
                return Err(refuse(format!("the values of the template exceed {max} bytes")));
            }
        }
        Ok(())
    })
}

/// Fails when a value of that size, measured as a tree, is larger than allowed.
pub(super) fn check_size(bytes: usize) -> Result<(), Error> {
    with(|meter| {
        let max = meter.limits.value;
        if bytes > max { Err(refuse(format!("a value exceeds {max} bytes"))) } else { Ok(()) }
    })
}

/// The largest value that may be built.
pub(super) fn value_bytes_max() -> usize {
    with(|meter| Ok(meter.limits.value)).unwrap_or(0)
}

/// Counts a string for as long as it lives.
pub(super) fn keep(value: &Value) {
    if value.as_str().is_none_or(|text| text.len() < STRING_BYTES_COUNTED) {
        return;
    }
    let Some(text) = value.to_str() else { return };
    let _ = with(|meter| {
        let bytes = text.len();
        if meter.strings.insert(text.as_ptr().addr(), text).is_none() {
            meter.string_bytes = meter.string_bytes.saturating_add(bytes);
        }
        Ok(())
    });
}

/// Bytes that a container must count for an item in it beside the item's slot.
pub(super) fn inline_bytes(value: &Value) -> usize {
    match value.as_str() {
        Some(text) if text.len() > 22 && text.len() < STRING_BYTES_COUNTED => {
            text.len().saturating_add(32)
        }
        _ => 0,
    }
}

/// Counts bytes about to be printed.
pub(super) fn print(bytes: usize) -> Result<(), Error> {
    work_bytes(bytes)?;
    with(|meter| {
        meter.printed = meter.printed.saturating_add(bytes);
        if meter.printed > meter.limits.printed {
            let max = meter.limits.printed;
            return Err(refuse(format!("the template prints more than {max} bytes")));
        }
        Ok(())
    })
}

/// The time that the template sees.
pub(super) fn clock() -> Result<Clock, Error> {
    with(|meter| Ok(meter.clock))
}

/// Remembers the message of `raise_exception`: it must arrive unchanged.
pub(super) fn raise(message: String) {
    let _ = with(|meter| {
        meter.raised = Some(message);
        Ok(())
    });
}

/// The message of `raise_exception`, if it was called.
pub(super) fn raised() -> Option<String> {
    with(|meter| Ok(meter.raised.take())).ok().flatten()
}

impl Meter {
    fn live(&self) -> usize {
        self.held.load(Ordering::Relaxed).saturating_add(self.string_bytes)
    }

    /// Forgets strings that only the meter holds.
    fn sweep(&mut self) -> Result<(), Error> {
        self.work = self.work.saturating_add(self.strings.len());
        if self.work > self.limits.work {
            return Err(refuse("the template does too much work"));
        }
        self.strings.retain(|_, text| Arc::strong_count(text) > 1);
        self.string_bytes = self.strings.values().map(|text| text.len()).sum();
        Ok(())
    }
}

/// Bytes that a container has taken; dropping it gives them back.
#[derive(Debug)]
pub(super) struct Charge {
    bytes: AtomicUsize,
    held: Arc<AtomicUsize>,
}

impl Charge {
    /// Takes bytes, for which `room` was asked.
    pub fn new(bytes: usize) -> Result<Charge, Error> {
        room(bytes)?;
        let held = with(|meter| Ok(Arc::clone(&meter.held)))?;
        held.fetch_add(bytes, Ordering::Relaxed);
        Ok(Charge { bytes: AtomicUsize::new(bytes), held })
    }

    /// Takes more.
    pub fn grow(&self, bytes: usize) -> Result<(), Error> {
        room(bytes)?;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.held.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}
