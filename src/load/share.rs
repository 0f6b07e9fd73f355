//! A loaded model's share of memory: what it was asked to keep to, where that has put everything,
//! and how it changes while the model runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak, mpsc};

use parking_lot::Mutex;

use super::budget::{self, Memory};
use super::ledger::{self, Want};
use crate::backend::cpu::cores;
use crate::engine::Handle;
use crate::engine::bounds::Bounds;
use crate::engine::command::Command;
use crate::error::{Error, Result};
use crate::place::{self, Io, Placement, Request};
use crate::plan::Plan;
use crate::plan::residency::Units;
use crate::store::Store;

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
    plan: Arc<Plan>,
    units: Units,
    /// Of the model as it was loaded, with the context that it got.
    request: Request,
    /// Scratch of a thread.
    scratch_each: u64,
    number: u64,
    state: Mutex<State>,
    handle: Handle,
    store: Weak<Store>,
}

struct State {
    asked: Asked,
    placement: Placement,
}

impl Share {
    /// Of a model that was placed so. Its context stays what it is.
    #[must_use]
    pub fn new(
        (plan, units): (Arc<Plan>, Units),
        request: Request,
        (asked, placement): (Asked, Placement),
        (handle, store): (Handle, Weak<Store>),
        number: u64,
    ) -> Arc<Self> {
        let request = Request { n_ctx: Some(placement.n_ctx), ..request };
        let promised = placement.budget.total();
        let state = Mutex::new(State { asked, placement });
        let scratch_each = request.scratch_bytes / count(asked.threads) as u64;
        let share = Share { plan, units, request, scratch_each, number, state, handle, store };
        let share = Arc::new(share);
        ledger::open().enter(number, &share, promised);
        share
    }

    /// Changes budget and read-ahead between two passes; `cancel` calls that off.
    ///
    /// # Errors
    /// `ERR_INSUFFICIENT_MEMORY` with the smallest budget that works, `ERR_INVALID_ARG`,
    /// `ERR_CLOSED`, `ABORT_ERR`: everything is as it was then.
    pub fn configure(self: &Arc<Self>, change: Change, cancel: &Arc<AtomicBool>) -> Result<()> {
        let mut ledger = ledger::open();
        let before = self.state.lock().asked;
        let asked = Asked {
            ram: change.ram.unwrap_or(before.ram),
            kv: change.kv.unwrap_or(before.kv),
            prefetch: change.prefetch.unwrap_or(before.prefetch),
            threads: change.threads.unwrap_or(before.threads),
        };
        let threads = (asked.threads != before.threads).then_some(asked.threads);
        budget::check_machine(asked.ram)?;
        let room = ledger.room_of(self.number);
        let limit = budget::limit(asked.ram, room);
        let placement = self.place(asked, limit)?;
        self.apply(&placement, threads, cancel)?;
        ledger.enter(self.number, self, placement.budget.total());
        *self.state.lock() = State { asked, placement };
        Ok(())
    }

    /// Another budget, in bytes, as was asked for otherwise; what of it is used.
    pub(super) fn resize(&self, limit: u64) -> Result<u64> {
        let asked = self.state.lock().asked;
        let placement = self.place(asked, Some(limit))?;
        self.apply(&placement, None, &Arc::default())?;
        let total = placement.budget.total();
        self.state.lock().placement = placement;
        Ok(total)
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

    pub(super) fn number(&self) -> u64 {
        self.number
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

    /// Moves to a placement, and waits until it is there.
    fn apply(
        &self,
        placement: &Placement,
        threads: Option<Option<usize>>,
        cancel: &Arc<AtomicBool>,
    ) -> Result<()> {
        let (store, cancel) = (self.store.clone(), cancel.clone());
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
        let (sender, receiver) = mpsc::channel();
        let reply = Box::new(move |outcome| drop(sender.send(outcome)));
        let mover = Box::new(mover);
        let bounds = bounds(placement);
        self.handle.send(Command::Configure { bounds, threads, mover, reply })?;
        receiver.recv().map_err(|error| Error::internal("configuring a model", error))?
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
