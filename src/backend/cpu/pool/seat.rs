//! Where a thread of the pool sleeps, and how it is woken. It does not know what for.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Thread};

const AWAKE: u8 = 0;
/// Asleep without a job.
pub const IDLE: u8 = 1;
/// Asleep in the middle of one.
pub const GATE: u8 = 2;

/// One for each thread of a pool.
#[derive(Default)]
pub struct Seat {
    state: AtomicU8,
    /// Who sits there: the caller's thread may be another one each time. The system's own mutex,
    /// as that of parking_lot allocates for a thread that waits for the first time.
    thread: Mutex<Option<Thread>>,
}

impl Seat {
    /// Sleeps until something is true. Whoever makes it true calls [`Seat::wake`] after that, both
    /// in sequentially consistent order.
    pub fn sleep(&self, reason: u8, is_over: &dyn Fn() -> bool) {
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current());
        loop {
            self.state.store(reason, Ordering::SeqCst);
            if is_over() {
                break;
            }
            thread::park();
        }
        self.state.store(AWAKE, Ordering::SeqCst);
    }

    /// Wakes it, if it sleeps for this reason.
    pub fn wake(&self, reason: u8) {
        if self.state.load(Ordering::SeqCst) == reason
            && let Some(thread) = &*self.thread.lock().unwrap_or_else(PoisonError::into_inner)
        {
            thread.unpark();
        }
    }
}
