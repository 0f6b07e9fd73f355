//! Remembers what is read and computed when, for whoever wants to draw it: of this process, up to
//! so many events. Costs an atomic load while nobody asked for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

static IS_ON: AtomicBool = AtomicBool::new(false);
static RECORD: Mutex<Option<Record>> = Mutex::new(None);

struct Record {
    origin: Instant,
    most: usize,
    events: Vec<Event>,
}

/// What takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Bytes of a group come from disk.
    Read,
    /// The engine waits for a group.
    Wait,
    /// The engine holds a group: it computes.
    Compute,
}

/// Something that took time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    /// What it was.
    pub what: What,
    /// The group, by its index in the plan.
    pub group: usize,
    /// Seconds since the record began.
    pub start: f64,
    /// The same.
    pub end: f64,
}

/// Begins a new record of at most so many events.
pub fn start(most: usize) {
    *RECORD.lock() = Some(Record { origin: Instant::now(), most, events: Vec::new() });
    IS_ON.store(true, Ordering::Release);
}

/// Ends the record; what is in it.
#[must_use]
pub fn take() -> Vec<Event> {
    IS_ON.store(false, Ordering::Release);
    RECORD.lock().take().map(|record| record.events).unwrap_or_default()
}

/// Something that began then is over.
pub(super) fn note(what: What, group: usize, began: Instant) {
    if !IS_ON.load(Ordering::Acquire) {
        return;
    }
    let mut record = RECORD.lock();
    let Some(record) = record.as_mut().filter(|record| record.events.len() < record.most) else {
        return;
    };
    // What began before the record did is cut at its beginning.
    let start = began.saturating_duration_since(record.origin).as_secs_f64();
    let end = record.origin.elapsed().as_secs_f64();
    record.events.push(Event { what, group, start, end });
}
