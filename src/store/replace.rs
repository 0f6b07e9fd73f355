//! Another residence for a model that runs: what stays and what passes through changes between two
//! passes. The loader lets what is on its way arrive, gives back first and takes then, so that the
//! larger of both budgets is never exceeded; what stays in both residences is not read again.

use std::sync::Arc;

use parking_lot::MutexGuard;

use super::io::buffer::Buffer;
use super::io::{Done, Io, Opened, Read};
use super::loader::Loader;
use super::mapped::Mapped;
use super::state::{Content, State};
use super::streamed::Streamed;
use super::{Kind, Store, io, stats};
use crate::error::{Code, Error, Result};
use crate::plan::residency::Residence;

/// What is to become of the places.
pub enum Change {
    /// They stay.
    None,
    /// They are to be these.
    Wanted(Residence),
    /// They are being made.
    Working,
    /// They are as wanted, or as they were.
    Done(Result<()>),
}

impl Change {
    /// Whether the loader has to make one.
    pub fn is_wanted(&self) -> bool {
        matches!(self, Change::Wanted(_))
    }

    fn take(&mut self) -> Self {
        std::mem::replace(self, Change::None)
    }
}

/// What a residence holds beside weights, empty.
struct Places {
    slots: Vec<Buffer>,
    staging: Option<Buffer>,
    opened: Opened,
}

impl Store {
    /// Moves to another residence, or to mapped weights (none), between passes; `direct`: reads go
    /// around the page cache if they did not before. `gives_up` is asked now and then while reads
    /// are on their way. After an error everything is where it was, though some is read again.
    ///
    /// # Errors
    /// As [`Store::open`] and [`Store::stream`]; `ERR_INSUFFICIENT_MEMORY` if the system gives less
    /// than the residence takes, `ABORT_ERR` if `gives_up` says so.
    pub fn replace(
        &self,
        residence: Option<Residence>,
        direct: bool,
        gives_up: &mut dyn FnMut() -> bool,
    ) -> Result<()> {
        let kind = match (self.kind(), residence) {
            (Kind::Mapped(_), None) => return Ok(()),
            (Kind::Streamed(streamed), Some(residence)) => {
                return streamed.replace(residence, gives_up);
            }
            (Kind::Mapped(mapped), Some(residence)) => {
                // What is read from now on is compared with how the files are now.
                mapped.acquire(0)?;
                let opener = io::opener(&self.parts, direct);
                let streamed = Streamed::open(&self.parts, &self.plan, residence, opener)?;
                Kind::Streamed(Arc::new(streamed))
            }
            (Kind::Streamed(streamed), None) => {
                streamed.shared().watch.check()?;
                let mapped = Mapped::open(&self.parts, &self.plan)?;
                let mut past = self.past.lock();
                *past = stats::streamed(&self.plan, streamed.shared()).after(&past);
                Kind::Mapped(Arc::new(mapped))
            }
        };
        *self.kind.write() = kind;
        Ok(())
    }
}

impl Streamed {
    /// As [`Store::replace`], streamed before and after. Errors: also what the loading thread has
    /// ended with.
    fn replace(&self, residence: Residence, gives_up: &mut dyn FnMut() -> bool) -> Result<()> {
        let mut state = self.shared().state.lock();
        state.change = Change::Wanted(residence);
        loop {
            let is_quiet = match self.pause(&mut state) {
                Ok(has_news) => !has_news,
                Err(error) => {
                    state.change = Change::None;
                    return Err(error);
                }
            };
            match state.change.take() {
                Change::Done(outcome) => return outcome,
                other => state.change = other,
            }
            let is_off = is_quiet && MutexGuard::unlocked(&mut state, &mut *gives_up);
            if is_off && state.change.is_wanted() {
                state.change = Change::None;
                self.shared().wake.notify_one();
                return Err(Error::new(Code::Abort, "moving weights was called off"));
            }
        }
    }
}

impl Loader {
    /// Moves to the residence that is wanted. Nothing is on its way.
    ///
    /// # Errors
    /// What keeps the old places, too, from being made again: then there are none.
    pub fn replace(&mut self) -> Result<()> {
        let shared = self.shared.clone();
        let old = shared.residence();
        let mut state = shared.state.lock();
        let new = match std::mem::replace(&mut state.change, Change::Working) {
            Change::Wanted(new) => Arc::new(new),
            other => {
                state.change = other;
                return Ok(());
            }
        };
        let keeps_ring = keeps_ring(&state, &old, &new);
        release(&mut state, &old, &new, keeps_ring);
        let mut outcome = Ok(());
        let mut now = new;
        if !keeps_ring {
            drop(state);
            // The kernel lets go of buffers that it knows when this one goes.
            self.io = Box::new(Nowhere);
            let places = match self.make(&now) {
                Ok(places) => places,
                Err(error) => {
                    outcome = Err(error);
                    now = old;
                    self.make(&now)?
                }
            };
            state = shared.state.lock();
            self.io = places.opened.io;
            state.counters.io = self.io.name().to_owned();
            state.counters.reason = places.opened.reason;
            (state.free, state.staging) = (places.slots, places.staging);
        }
        state.cache.resize(now.expert_slots);
        *shared.residence.write() = now;
        state.change = Change::Done(outcome);
        shared.news.notify_all();
        Ok(())
    }

    fn make(&mut self, residence: &Residence) -> Result<Places> {
        let slots = (0..residence.slots).map(|_| Buffer::new(residence.slot_bytes));
        let mut slots = slots.collect::<Result<Vec<_>>>()?;
        let staging = residence.staging_bytes;
        let staging = if staging == 0 { None } else { Some(Buffer::new(staging)?) };
        let opened = (self.opener)(&mut slots)?;
        Ok(Places { slots, staging, opened })
    }
}

/// Whether the ring can stay: it has the same slots, none of which anybody reads.
fn keeps_ring(state: &State, old: &Residence, new: &Residence) -> bool {
    let shape = |r: &Residence| (r.slots, r.slot_bytes, r.staging_bytes);
    let is_held = |content: &Content| match content {
        Content::Ready(buffer) => Arc::strong_count(buffer) > 1,
        _ => false,
    };
    let mut cells = state.cells.iter().zip(&old.pinned).filter(|(_, pinned)| !**pinned);
    shape(old) == shape(new) && !cells.any(|(cell, _)| is_held(&cell.content))
}

/// Gives back what does not stay. A group that somebody reads goes when that is over.
fn release(state: &mut State, old: &Residence, new: &Residence, keeps_ring: bool) {
    let places = old.pinned.iter().zip(&new.pinned);
    for (cell, (was_pinned, is_pinned)) in state.cells.iter_mut().zip(places) {
        if was_pinned == is_pinned && (*is_pinned || keeps_ring) {
            continue;
        }
        let content = std::mem::replace(&mut cell.content, Content::Cold);
        if let (Content::Ready(buffer), false) = (content, *was_pinned) {
            // Without a ring to return to it is dropped below.
            state.free.extend(Arc::into_inner(buffer));
        }
    }
    state.cache.resize(new.expert_slots.min(old.expert_slots));
    if !keeps_ring {
        state.free.clear();
        state.staging = None;
    }
}

/// No way to read: between two.
struct Nowhere;

impl Io for Nowhere {
    fn name(&self) -> &str {
        "none"
    }

    fn depth(&self) -> usize {
        0
    }

    fn submit(&mut self, _: Read) {}

    fn wait(&mut self) -> Option<Done> {
        None
    }

    fn cancel(&mut self) {}
}
