//! The bounded way into the engine thread. What may be refused is refused at the door with
//! `ERR_QUEUE_FULL`; calling something off is never refused. Knows nothing of what commands do.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::engine::command::Command;
use crate::error::{Code, Error, Result};

/// Session commands that may wait; each is answered within a group, so more means a flood.
const CONTROL_LIMIT: usize = 65_536;

/// A command, and when it was sent.
pub struct Letter {
    /// When it was let in.
    pub sent: Instant,
    /// What is asked.
    pub command: Command,
}

/// Commands on their way to the engine thread.
pub struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
    /// Whether there is something to look at; read between groups without the lock.
    pending: AtomicBool,
    /// Generations and scores that were let in and have not ended.
    live: AtomicUsize,
    max_concurrent: usize,
    max_queued: usize,
}

#[derive(Default)]
struct State {
    commands: VecDeque<Letter>,
    is_closed: bool,
    is_finished: bool,
}

impl Inbox {
    /// An open inbox for an engine that steps `max_concurrent` and lets `max_queued` wait.
    #[must_use]
    pub fn new(max_concurrent: usize, max_queued: usize) -> Self {
        Inbox {
            state: Mutex::default(),
            changed: Condvar::new(),
            pending: AtomicBool::new(false),
            live: AtomicUsize::new(0),
            max_concurrent,
            max_queued,
        }
    }

    /// Lets a command in. Errors: `ERR_CLOSED`, `ERR_QUEUE_FULL`.
    pub fn send(&self, command: Command) -> Result<()> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(closed("model"));
        }
        match &command {
            Command::Generate(_) | Command::Score { .. } => {
                let limit = self.max_concurrent.saturating_add(self.max_queued);
                if self.live.load(Ordering::Relaxed) >= limit {
                    return Err(full(self.max_queued));
                }
                self.live.fetch_add(1, Ordering::Relaxed);
            }
            Command::SessionOpen(..)
            | Command::SessionFork { .. }
            | Command::SessionRewind { .. } => {
                if state.commands.len() >= CONTROL_LIMIT {
                    return Err(full(CONTROL_LIMIT));
                }
            }
            Command::Cancel(..)
            | Command::Resume(_)
            | Command::SessionClose(..)
            | Command::Configure { .. }
            | Command::Close => {}
        }
        state.commands.push_back(Letter { sent: Instant::now(), command });
        drop(state);
        self.nudge();
        Ok(())
    }

    /// Whether nothing is let in any more.
    pub fn is_closed(&self) -> bool {
        self.state.lock().is_closed
    }

    /// Wakes the engine thread: something changed outside the commands.
    pub fn nudge(&self) {
        self.pending.store(true, Ordering::Release);
        // The lock orders this with a thread that is about to wait.
        drop(self.state.lock());
        self.changed.notify_all();
    }

    /// Engine: a generation or score has ended; its place is free.
    pub fn ended(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }

    /// Engine: all commands there are; none, cheaply, if nothing happened since the last time.
    pub fn take(&self) -> Option<VecDeque<Letter>> {
        if !self.pending.swap(false, Ordering::Acquire) {
            return None;
        }
        Some(std::mem::take(&mut self.state.lock().commands))
    }

    /// Engine: waits until there is something to look at.
    pub fn wait(&self) {
        let mut state = self.state.lock();
        while !self.pending.load(Ordering::Acquire) {
            self.changed.wait(&mut state);
        }
    }

    /// Engine: refuses all further commands and hands out those that nobody has looked at.
    pub fn close(&self) -> VecDeque<Letter> {
        let mut state = self.state.lock();
        state.is_closed = true;
        std::mem::take(&mut state.commands)
    }

    /// Engine: the thread has let go of everything.
    pub fn finish(&self) {
        self.state.lock().is_finished = true;
        self.changed.notify_all();
    }

    /// Waits until the engine thread has let go of everything; `false` after `timeout`.
    pub fn wait_finished(&self, timeout: Duration) -> bool {
        let mut state = self.state.lock();
        let condition = |state: &mut State| !state.is_finished;
        !self.changed.wait_while_for(&mut state, condition, timeout).timed_out()
    }
}

/// `ERR_CLOSED` for a model or a session.
#[must_use]
pub fn closed(what: &str) -> Error {
    Error::new(Code::Closed, format!("this {what} was closed")).with("what", what)
}

fn full(limit: usize) -> Error {
    let text = format!("{limit} wait already; try again when some have ended, or raise maxQueued");
    Error::new(Code::QueueFull, text).with("limit", limit)
}
