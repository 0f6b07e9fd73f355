//! What the engine and the loader share: which group is where, who wants what. A group is cold,
//! then loading, then ready; a ready one stays while somebody reads it or it is pinned.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, RwLock};

use super::experts::{Cache, Found, Key};
use super::io::buffer::Buffer;
use super::probe::Way;
use super::replace::Change;
use super::watch::Watch;
use crate::error::{Error, Result};
use crate::plan::residency::{Residence, Run, Units};

/// Known to both threads.
pub struct Shared {
    pub units: Units,
    pub residence: RwLock<Arc<Residence>>,
    pub watch: Watch,
    pub state: Mutex<State>,
    /// Something is to be done for the loader.
    pub wake: Condvar,
    /// Something has come for the engine.
    pub news: Condvar,
}

impl Shared {
    /// Where each group lives now.
    pub fn residence(&self) -> Arc<Residence> {
        self.residence.read().clone()
    }
}

/// Where a unit's bytes are.
pub enum Content {
    Cold,
    Loading,
    Ready(Arc<Buffer>),
    /// Loading failed; whoever waits takes the error, and it is cold again.
    Failed(Error),
}

/// A group.
pub struct Cell {
    pub content: Content,
    /// Ready when it was asked for.
    pub hits: u64,
    /// Not even begun when it was asked for.
    pub misses: u64,
    /// Begun, but not done when it was asked for.
    pub late: u64,
    /// Routed experts of the group.
    pub experts: Routed,
}

/// How the routed experts of a group were found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Routed {
    /// In the cache.
    pub hits: u64,
    /// Not even on their way.
    pub misses: u64,
    /// On their way.
    pub late: u64,
    /// Experts that were asked for on a guess.
    pub guessed: u64,
    /// Of those, routed to before they had to go.
    pub guessed_right: u64,
}

impl Routed {
    /// An expert is asked for.
    pub fn count(&mut self, (found, is_guess): (Found, bool)) {
        match found {
            Found::Ready => self.hits += 1,
            Found::Late => self.late += 1,
            Found::Missing => self.misses += 1,
        }
        self.guessed_right += u64::from(is_guess);
    }
}

/// Something to load before anything else.
pub enum Order {
    /// An expert, into this slot or a new one.
    Expert { key: Key, slot: Option<Buffer> },
    /// Rows of a gathered weight.
    Rows { runs: Vec<Run>, staging: Buffer, bytes: u64 },
}

/// What has become of rows.
pub enum Rows {
    Idle,
    Loading,
    Done(Result<(), Error>, Option<Buffer>),
}

/// What changes.
pub struct State {
    pub cells: Vec<Cell>,
    /// The group that is held, or wanted next.
    pub position: usize,
    /// The group that the engine waits for.
    pub demand: Option<usize>,
    /// Slots of the ring that hold nothing.
    pub free: Vec<Buffer>,
    pub orders: VecDeque<Order>,
    pub cache: Cache,
    /// Experts of a group to come that are likely to be asked for, the likeliest first.
    pub foreseen: Vec<Key>,
    pub staging: Option<Buffer>,
    pub rows: Rows,
    /// What is to become of the places.
    pub change: Change,
    pub is_closing: bool,
    /// The loader has ended; why, if it was not asked to.
    pub over: Option<Option<Error>>,
    pub counters: Counters,
}

/// Figures over the model's life.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    pub io: String,
    pub reason: Option<String>,
    /// How the device is read, as far as that is found out.
    pub way: Way,
    /// Weights of groups that were loaded.
    pub group_bytes: u64,
    /// Weights of experts that were loaded.
    pub expert_bytes: u64,
    /// Of those, what was read on a guess.
    pub guessed_bytes: u64,
    /// Rows of gathered weights.
    pub gathered_bytes: u64,
    /// All that was read, with what direct reads add at the edges.
    pub device_bytes: u64,
    /// Seconds in which reads were on their way.
    pub busy_s: f64,
    pub in_flight: usize,
    /// Milliseconds that the engine has waited.
    pub stall_ms: f64,
}

impl Counters {
    /// Bytes of weights that were read.
    pub fn bytes_read(&self) -> u64 {
        self.group_bytes + self.expert_bytes + self.gathered_bytes
    }
}

impl Cell {
    /// A group that was never asked for.
    pub fn new() -> Self {
        let experts = Routed::default();
        Cell { content: Content::Cold, hits: 0, misses: 0, late: 0, experts }
    }
}

impl Cell {
    /// What has become of the group, counted when somebody looks first. A load that began while
    /// nobody waited (`is_early`), and failed, is tried again before that is told.
    pub fn look(&mut self, waited: bool, is_early: &mut bool) -> Option<Result<Arc<Buffer>>> {
        match &self.content {
            Content::Ready(buffer) => {
                self.hits += u64::from(!waited);
                return Some(Ok(buffer.clone()));
            }
            Content::Failed(error) => {
                let error = error.clone();
                self.content = Content::Cold;
                if !*is_early {
                    return Some(Err(error));
                }
                *is_early = false;
                self.misses += u64::from(!waited);
            }
            Content::Cold => {
                *is_early = false;
                self.misses += u64::from(!waited);
            }
            Content::Loading => self.late += u64::from(!waited),
        }
        None
    }
}

impl State {
    /// Nothing is there yet.
    pub fn new(units: &Units, expert_slots: usize, staging: Option<Buffer>) -> Self {
        State {
            cells: units.groups.iter().map(|_| Cell::new()).collect(),
            position: 0,
            demand: None,
            free: Vec::new(),
            orders: VecDeque::new(),
            cache: Cache::new(expert_slots, units.experts().count()),
            foreseen: Vec::new(),
            staging,
            rows: Rows::Idle,
            change: Change::None,
            is_closing: false,
            over: None,
            counters: Counters::default(),
        }
    }

    /// Gives all memory for weights back. Nobody reads any more.
    pub fn release(&mut self) {
        self.cells.clear();
        self.free.clear();
        self.orders.clear();
        self.cache = Cache::new(0, 0);
        self.staging = None;
        self.rows = Rows::Idle;
    }

    /// The groups that the ring should hold, from the position on, and all that are pinned.
    pub fn window(&self, shared: &Shared) -> Vec<usize> {
        let residence = shared.residence();
        let n = self.cells.len();
        let mut streamed = 0;
        let mut window = Vec::new();
        for step in 0..n {
            let group = (self.position + step) % n;
            if shared.units.groups.get(group).is_none_or(|units| units.own.room == 0) {
                continue;
            }
            if !residence.pinned.get(group).copied().unwrap_or(false) {
                if streamed == residence.slots.min(residence.read_ahead + 1) {
                    continue;
                }
                streamed += 1;
            }
            window.push(group);
        }
        window
    }

    /// A slot of the ring for a group: an empty one, or that of a group outside of the window that
    /// nobody reads.
    pub fn slot(&mut self, shared: &Shared, window: &[usize]) -> Option<Buffer> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        let residence = shared.residence();
        for (group, cell) in self.cells.iter_mut().enumerate() {
            let is_pinned = residence.pinned.get(group).copied().unwrap_or(true);
            if is_pinned || window.contains(&group) {
                continue;
            }
            match std::mem::replace(&mut cell.content, Content::Cold) {
                Content::Ready(buffer) => match Arc::try_unwrap(buffer) {
                    Ok(buffer) => return Some(buffer),
                    Err(buffer) => cell.content = Content::Ready(buffer),
                },
                other => cell.content = other,
            }
        }
        None
    }
}
