//! A loaded model's share of memory: what it was asked to keep to, where that has put everything,
//! and how it changes while the model runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::budget::{self, Memory};
use super::ledger::{self, Until, Want};
use crate::backend::cpu::cores;
use crate::engine::Handle;
use crate::engine::bounds::Bounds;
use crate::engine::command::Command;
use crate::error::{Error, Result};
use crate::place::{self, Io, Placement, Request};
use crate::plan::Plan;
use crate::plan::residency::Units;
use crate::store::Store;

/// How long to wait for an engine before looking whether anybody still wants it.
const PATIENCE: Duration = Duration::from_millis(20);

/// What a model was asked to keep to; none of a budget: 'auto'.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked {
    /// Bytes all in all.
    pub ram: Option<u64>,
    /// Of those, for the KV cache.
    pub kv: Option<u64>,
    /// Groups read ahead.
    pub prefetch: Option<usize>,
    /// CPU threads.
    pub threads: Option<usize>,
}

/// What is to change; none: as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// As [`Asked::ram`].
    pub ram: Option<Option<u64>>,
    /// As [`Asked::kv`].
    pub kv: Option<Option<u64>>,
    /// As [`Asked::prefetch`].
    pub prefetch: Option<Option<usize>>,
    /// As [`Asked::threads`].
    pub threads: Option<Option<usize>>,
}

/// A model's share.
pub struct Share {
    /// Its file.
    name: String,
    plan: Arc<Plan>,
    units: Units,
    /// Of the model as it was loaded, with the context that it got.
    request: Request,
    /// Scratch of a thread.
    scratch_each: u64,
    number: u64,
    /// One change at a time.
    changes: Mutex<()>,
    state: Arc<Mutex<State>>,
    handle: Handle,
    store: Weak<Store>,
}

struct State {
    asked: Asked,
    placement: Placement,
    /// Bytes of the placement that it is about to move to.
    moves_to: Option<u64>,
}

/// Who waits for a move, and how long.
struct Wait<'a> {
    cancel: &'a Arc<AtomicBool>,
    until: Option<Until<'a>>,
}

impl Share {
    /// Of a model that was placed so. Its context stays what it is.
    #[must_use]
    pub fn new(
        name: String,
        (plan, units): (Arc<Plan>, Units),
        request: Request,
        (asked, placement): (Asked, Placement),
        (handle, store): (Handle, Weak<Store>),
        number: u64,
    ) -> Arc<Self> {
        let request = Request { n_ctx: Some(placement.n_ctx), ..request };
        let state = Arc::new(Mutex::new(State { asked, placement, moves_to: None }));
        let scratch_each = request.scratch_bytes / count(asked.threads) as u64;
        let changes = Mutex::new(());
        let share = Share {
            name,
            plan,
            units,
            request,
            scratch_each,
            number,
            changes,
            state,
            handle,
            store,
        };
        let share = Arc::new(share);
        ledger::open().enter(number, &share);
        share
    }

    /// Changes budget and read-ahead between two passes; `cancel` calls that off.
    ///
    /// # Errors
    /// `ERR_INSUFFICIENT_MEMORY` with the smallest budget that works, `ERR_INVALID_ARG`,
    /// `ERR_CLOSED`, `ABORT_ERR`: everything is as it was then.
    pub fn configure(self: &Arc<Self>, change: Change, cancel: &Arc<AtomicBool>) -> Result<()> {
        let (ledger, _one) = loop {
            let ledger = ledger::open();
            if let Some(one) = self.changes.try_lock() {
                break (ledger, one);
            }
            // Others may use the ledger while this one waits.
            drop(ledger);
            std::thread::sleep(PATIENCE);
        };
        let before = self.state.lock().asked;
        let asked = Asked {
            ram: change.ram.unwrap_or(before.ram),
            kv: change.kv.unwrap_or(before.kv),
            prefetch: change.prefetch.unwrap_or(before.prefetch),
            threads: change.threads.unwrap_or(before.threads),
        };
        budget::check_machine(asked.ram)?;
        let limit = budget::limit(asked.ram, ledger.room_of(self.number));
        let placement = self.place(asked, limit)?;
        self.announce(&placement);
        drop(ledger);
        self.apply(asked, placement, &Wait { cancel, until: None })
    }

    /// Another budget, in bytes, as was asked for otherwise; what of it is used. Waits for the end
    /// of a pass until `until`: an engine whose disk hangs never comes to it.
    pub(super) fn resize(&self, limit: u64, until: Until<'_>) -> Result<u64> {
        let busy = || Error::internal("resizing a model", "it is being changed");
        let _one = self.changes.try_lock().ok_or_else(busy)?;
        let asked = self.state.lock().asked;
        let placement = self.place(asked, Some(limit))?;
        let total = placement.budget.total();
        self.announce(&placement);
        self.apply(asked, placement, &Wait { cancel: &Arc::default(), until: Some(until) })?;
        Ok(total)
    }

    /// Bytes that nobody else may have: of what it is, and of what it is about to be.
    pub(super) fn promised(&self) -> u64 {
        let state = self.state.lock();
        state.placement.budget.total().max(state.moves_to.unwrap_or(0))
    }

    /// Whether it is on its way to another budget: until that is over it takes no other.
    pub(super) fn is_moving(&self) -> bool {
        self.state.lock().moves_to.is_some()
    }

    /// Its file.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether its budget is 'auto'.
    pub(super) fn is_auto(&self) -> bool {
        self.state.lock().asked.ram.is_none()
    }

    /// What it can do with memory.
    pub(super) fn want(&self) -> Want {
        let asked = self.state.lock().asked;
        match self.place(asked, None) {
            Ok(best) => Want { least: best.minimum, most: best.budget.total() },
            Err(_) => {
                let total = self.memory().total();
                Want { least: total, most: total }
            }
        }
    }

    /// Bytes that it holds.
    pub(super) fn taken(&self) -> u64 {
        let engine = self.handle.stats();
        let weights = self.store.upgrade().map_or(0, |store| store.resident_bytes());
        weights.saturating_add((engine.kv_bytes + engine.scratch_bytes) as u64)
    }

    /// Threads that compute now.
    #[must_use]
    pub fn threads(&self) -> usize {
        count(self.state.lock().asked.threads)
    }

    /// What its memory is for now.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.state.lock().placement.budget
    }

    /// Where everything is now.
    #[must_use]
    pub fn placement(&self) -> Placement {
        self.state.lock().placement.clone()
    }

    fn place(&self, asked: Asked, limit: Option<u64>) -> Result<Placement> {
        let Asked { kv: kv_bytes, prefetch, threads, .. } = asked;
        // Every thread has its own.
        let scratch_bytes = self.scratch_each.saturating_mul(count(threads) as u64);
        let request = Request { limit, kv_bytes, prefetch, scratch_bytes, ..self.request };
        place::place(&self.plan, &self.units, &request)
    }

    fn announce(&self, placement: &Placement) {
        self.state.lock().moves_to = Some(placement.budget.total());
    }

    /// Moves to a placement that was announced, and waits until it is there. Who stops waiting has
    /// called it off; if that comes too late, it is entered all the same.
    fn apply(&self, asked: Asked, placement: Placement, wait: &Wait<'_>) -> Result<()> {
        let (store, cancel) = (self.store.clone(), wait.cancel.clone());
        let residence = placement.streamed.clone();
        let direct = self.request.io != Io::Buffered;
        let mover = move |gives_up: &mut dyn FnMut() -> bool| {
            let gone = || Error::internal("configuring a model", "its weights are gone");
            let store = store.upgrade().ok_or_else(gone)?;
            if cancel.load(Ordering::Relaxed) {
                return Err(super::aborted());
            }
            store.replace(residence, direct, &mut || cancel.load(Ordering::Relaxed) || gives_up())
        };
        let before = self.state.lock().asked.threads;
        let threads = (asked.threads != before).then_some(asked.threads);
        let bounds = bounds(&placement);
        let (sender, receiver) = mpsc::channel();
        let state = self.state.clone();
        let reply = Box::new(move |outcome: Result<()>| {
            let mut state = state.lock();
            state.moves_to = None;
            if outcome.is_ok() {
                (state.asked, state.placement) = (asked, placement);
            }
            drop(state);
            drop(sender.send(outcome));
        });
        let command = Command::Configure { bounds, threads, mover: Box::new(mover), reply };
        if let Err(error) = self.handle.send(command) {
            self.state.lock().moves_to = None;
            return Err(error);
        }
        loop {
            match receiver.recv_timeout(PATIENCE) {
                Ok(outcome) => return outcome,
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::internal("configuring a model", "nobody answered"));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if wait.until.is_some_and(|until| until.is_over()) {
                wait.cancel.store(true, Ordering::Relaxed);
                return Err(super::aborted());
            }
        }
    }
}

/// Threads, if so many were asked for.
fn count(threads: Option<usize>) -> usize {
    threads.unwrap_or_else(cores::default_threads).max(1)
}

/// What a placement has made memory for.
#[must_use]
pub fn bounds(placement: &Placement) -> Bounds {
    let place::Size { rows, generations, logits_rows } = placement.size;
    let (kv_pages, streams) = (placement.kv_pages, placement.streamed.is_some());
    Bounds { rows, generations, logits_rows, kv_pages, streams }
}
