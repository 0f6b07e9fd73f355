//! Weights that are read as they are needed: what the engine's thread does. It takes what is ready,
//! waits for what is not, and says what it is done with; the loader does the rest.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};

use super::experts::{Key, Wanted};
use super::io::buffer::Buffer;
use super::io::{Opener, Read};
use super::loader;
use super::state::{Order, Rows, Shared, State};
use super::trace;
use super::watch::Watch;
use crate::error::{Error, Result};
use crate::gguf;
use crate::plan::residency::{ALIGN, ExpertUnits, Residence, Run, Unit, Units, align_up};
use crate::plan::{Extent, Plan, WeightId};

/// How long to wait for news before looking whether anybody still wants it.
const PATIENCE: Duration = Duration::from_millis(20);
/// How long closing waits for reads that the system does not give back.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// The weights of one model on their way.
pub struct Streamed {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    /// Weights that several groups need: they always stay.
    common: Option<Buffer>,
}

/// A group that is held.
pub struct Held {
    group: usize,
    buffer: Option<Arc<Buffer>>,
    since: Instant,
}

/// Experts that are held, by number.
pub type HeldExperts = Vec<(u32, Arc<Buffer>)>;

/// What is done with the experts of a turn: their place in the list, their units, their bytes.
pub type Turn<'a> = dyn FnMut(Range<usize>, &ExpertUnits, &HeldExperts) -> Result<()> + 'a;

impl Streamed {
    /// Starts loading.
    ///
    /// # Errors
    /// `ERR_IO`, `ERR_FILE_CHANGED`, `ERR_INSUFFICIENT_MEMORY`.
    pub fn open(
        parts: &[gguf::Part],
        plan: &Arc<Plan>,
        residence: Residence,
        mut opener: Opener,
    ) -> Result<Self> {
        let units = Units::of(plan);
        let slots = (0..residence.slots).map(|_| Buffer::new(residence.slot_bytes));
        let mut free = slots.collect::<Result<Vec<_>>>()?;
        let staging = residence.staging_bytes;
        let staging = if staging == 0 { None } else { Some(Buffer::new(staging)?) };
        let state = State::new(&units, residence.expert_slots, staging);
        let shared = Arc::new(Shared {
            watch: Watch::new(parts)?,
            units,
            residence: RwLock::new(Arc::new(residence)),
            state: Mutex::new(state),
            wake: Condvar::new(),
            news: Condvar::new(),
        });
        let (sender, receiver) = std::sync::mpsc::channel();
        let thread_shared = shared.clone();
        let main = move || {
            let shared = thread_shared;
            // Made here, since io_uring wants to be used by the thread that made it.
            match opener(&mut free).and_then(|mut opened| {
                let common = load_common(&shared.units.shared, opened.io.as_mut(), &shared.watch)?;
                let mut state = shared.state.lock();
                state.free = free;
                state.counters.io = opened.io.name().to_owned();
                state.counters.reason = opened.reason.take();
                drop(state);
                Ok((opened, common))
            }) {
                Err(error) => drop(sender.send(Err(error))),
                Ok((opened, common)) => {
                    drop(sender.send(Ok(common)));
                    drop(sender);
                    loader::main(&shared, opened, opener);
                }
            }
        };
        std::thread::Builder::new()
            .name("chord-load".to_owned())
            .spawn(main)
            .map_err(|error| Error::threads("loading", 1, 0, &error))?;
        let gone = |error| Error::internal("starting the loading thread", error);
        let common = receiver.recv().map_err(gone)??;
        Ok(Streamed { plan: plan.clone(), shared, common })
    }
}

impl Streamed {
    /// Waits for a group and holds it. The first group of a pass also looks at the files. None if
    /// `gives_up`, which is asked now and then while it waits, says so.
    pub fn acquire(
        &self,
        group: usize,
        gives_up: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Held>> {
        let shared = &*self.shared;
        if group == 0 {
            shared.watch.check()?;
        }
        let Some(units) = shared.units.groups.get(group) else {
            return Err(Error::internal("store::acquire", format!("no group {group}")));
        };
        let mut state = shared.state.lock();
        state.position = group;
        if units.own.room == 0 {
            shared.wake.notify_one();
            return Ok(Some(Held { group, buffer: None, since: Instant::now() }));
        }
        let mut stall: Option<Instant> = None;
        // What began to load while nobody waited, and failed, is tried again before that is told.
        let mut is_early = true;
        let outcome = loop {
            let waited = stall.is_some();
            let cell = state.cells.get_mut(group);
            match cell.and_then(|cell| cell.look(waited, &mut is_early)) {
                Some(Ok(buffer)) => {
                    let (buffer, since) = (Some(buffer), Instant::now());
                    break Ok(Some(Held { group, buffer, since }));
                }
                Some(Err(error)) => break Err(error),
                None => {}
            }
            stall.get_or_insert_with(Instant::now);
            state.demand = Some(group);
            match self.pause(&mut state) {
                Err(error) => break Err(error),
                Ok(true) => {}
                Ok(false) if MutexGuard::unlocked(&mut state, &mut *gives_up) => break Ok(None),
                Ok(false) => {}
            }
        };
        state.demand = None;
        if let Some(began) = stall {
            state.counters.stall_ms += began.elapsed().as_secs_f64() * 1000.0;
            trace::note(trace::What::Wait, group, began);
        }
        shared.wake.notify_one();
        outcome
    }

    /// The engine is done with a group: the cursor moves on.
    pub fn release(&self, held: &mut Held) {
        trace::note(trace::What::Compute, held.group, held.since);
        let mut state = self.shared.state.lock();
        held.buffer = None;
        if state.position == held.group {
            state.position = (held.group + 1) % state.cells.len().max(1);
        }
        self.shared.wake.notify_one();
    }

    /// A weight of a group that is held, or of all groups.
    pub fn weight<'a>(&'a self, held: &'a Held, id: WeightId) -> Option<&'a [u8]> {
        let units = &self.shared.units;
        let own = units.groups.get(held.group).and_then(|units| units.own.piece(id));
        let found = own.zip(held.buffer.as_deref());
        let (piece, buffer) = found.or_else(|| units.shared.piece(id).zip(self.common.as_ref()))?;
        let at = usize::try_from(piece.at).ok()?;
        buffer.get(at..at.checked_add(usize::try_from(piece.bytes).ok()?)?)
    }

    /// Gives the rows of a weight one after the other, each with its index in `rows`.
    pub fn gather(
        &self,
        held: &Held,
        weight: WeightId,
        rows: &[u32],
        each: &mut dyn FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let tensor = self.plan.weight(weight);
        let n_rows = tensor.shape.first().copied().unwrap_or(0).max(1) as u64;
        let size = tensor.extent.bytes / n_rows;
        if let Some(bytes) = self.weight(held, weight) {
            return super::each_row(bytes, n_rows, rows, each);
        }
        let one = align_up(size) + ALIGN;
        let turn = usize::try_from(self.shared.residence().staging_bytes / one).unwrap_or(0).max(1);
        for (turn, rows) in rows.chunks(turn).enumerate().map(|(i, rows)| (i * turn, rows)) {
            let mut wanted = rows.to_vec();
            wanted.sort_unstable();
            wanted.dedup();
            let Extent { part, offset, bytes } = tensor.extent;
            let run = |row: &u32| {
                let start = offset + (u64::from(*row) * size).min(bytes - size);
                let first = start / ALIGN * ALIGN;
                let needed = start + size - first;
                Run { part, offset: first, bytes: align_up(needed), needed }
            };
            let runs: Vec<Run> = wanted.iter().map(run).collect();
            let staging = self.read_rows(&runs, size * wanted.len() as u64)?;
            let mut starts = Vec::with_capacity(runs.len());
            let mut at = 0;
            for run in &runs {
                starts.push(usize::try_from(at + run.needed - size).unwrap_or(usize::MAX));
                at += run.bytes;
            }
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            let given = rows.iter().enumerate().try_for_each(|(index, row)| {
                let found = wanted.binary_search(row).ok().and_then(|i| starts.get(i));
                let bytes = found.and_then(|at| staging.get(*at..at.checked_add(size)?));
                let lost = || Error::internal("store::gather", "a row without bytes");
                each(turn + index, bytes.ok_or_else(lost)?)
            });
            self.shared.state.lock().staging = Some(staging);
            given?;
        }
        Ok(())
    }

    /// Reads some rows into the staging buffer, which the caller puts back.
    fn read_rows(&self, runs: &[Run], bytes: u64) -> Result<Buffer> {
        let began = Instant::now();
        let mut state = self.shared.state.lock();
        let missing = || Error::internal("store::gather", "the staging buffer is gone");
        let staging = state.staging.take().ok_or_else(missing)?;
        state.rows = Rows::Loading;
        state.orders.push_back(Order::Rows { runs: runs.to_vec(), staging, bytes });
        loop {
            match std::mem::replace(&mut state.rows, Rows::Loading) {
                Rows::Done(outcome, staging) => {
                    state.rows = Rows::Idle;
                    state.counters.stall_ms += began.elapsed().as_secs_f64() * 1000.0;
                    let staging = staging.ok_or_else(missing)?;
                    if let Err(error) = outcome {
                        state.staging = Some(staging);
                        return Err(error);
                    }
                    return Ok(staging);
                }
                other => state.rows = other,
            }
            self.pause(&mut state)?;
        }
    }

    /// Experts of a step as they lie in the cache, turn by turn: as many as it holds, the next ones
    /// being read while `run` works.
    pub fn experts(
        &self,
        held: &Held,
        weights: &[WeightId],
        experts: &[u32],
        run: &mut Turn<'_>,
    ) -> Result<()> {
        let units = self.shared.units.groups.get(held.group);
        let steps = units.map_or(&[][..], |units| &units.experts);
        let step = steps.iter().position(|e| e.weights.as_slice() == weights);
        let unknown = || Error::internal("store::experts", "a group without such experts");
        let step = step.ok_or_else(unknown)?;
        let units = steps.get(step).ok_or_else(unknown)?;
        let turn = (self.shared.residence().expert_slots / 2).max(1);
        let layer = (held.group, step);
        let stands =
            &mut |(group, step, expert): Key| (group, step) == layer && experts.contains(&expert);
        self.shared.state.lock().cache.settle(stands);
        let mut start = 0;
        for now in experts.chunks(turn) {
            let end = start + now.len();
            let next = experts.get(end..).unwrap_or(&[]);
            let next = next.get(..turn).unwrap_or(next);
            let asked = if start == 0 { now } else { &[] };
            let got = self.hold(layer, (asked, now, next));
            let done = got.and_then(|got| run(start..end, units, &got));
            if let Err(error) = done {
                let mut state = self.shared.state.lock();
                for expert in now.iter().chain(next) {
                    state.cache.release((held.group, step, *expert));
                }
                state.foreseen.clear();
                return Err(error);
            }
            start = end;
        }
        Ok(())
    }

    /// Whether it is of use to foresee experts.
    pub fn reads_ahead(&self) -> bool {
        self.shared.residence().read_ahead > 0
    }

    /// Experts of a group to come are likely to be asked for, the likeliest first: they are loaded
    /// once those of the group that runs have been asked for.
    pub fn foresee(&self, group: usize, weights: &[WeightId], experts: &[u32]) {
        let units = self.shared.units.groups.get(group);
        let step = units.and_then(|u| u.experts.iter().position(|e| e.weights == weights));
        let mut state = self.shared.state.lock();
        state.foreseen.clear();
        if let Some(step) = step.filter(|_| self.reads_ahead()) {
            state.foreseen.extend(experts.iter().map(|expert| (group, step, *expert)));
        }
    }

    /// Asks for the experts of this turn and the next, `asked` being those of this turn that were
    /// not asked for yet, and waits for those of this. With the last turn guesses are begun.
    fn hold(
        &self,
        (group, step): (usize, usize),
        (asked, now, next): (&[u32], &[u32], &[u32]),
    ) -> Result<HeldExperts> {
        let mut state = self.shared.state.lock();
        let knows = |expert: &u32| state.cache.need((group, step, *expert)).is_some();
        let known: Vec<bool> = now.iter().map(knows).collect();
        for expert in asked.iter().chain(next) {
            let found = state.cache.look((group, step, *expert));
            if let Some(cell) = state.cells.get_mut(group) {
                cell.experts.count(found);
            }
        }
        let mut got = Vec::with_capacity(now.len());
        let mut began: Option<Instant> = None;
        for expert in now.iter().chain(next) {
            self.want(&mut state, (group, step, *expert));
        }
        if next.is_empty() {
            self.guess(&mut state);
        }
        for (expert, mut is_early) in now.iter().zip(known) {
            let key = (group, step, *expert);
            loop {
                match state.cache.get(key) {
                    Some(Ok(buffer)) => {
                        got.push((*expert, buffer));
                        break;
                    }
                    // As in `acquire`.
                    Some(Err(_)) if is_early => is_early = false,
                    Some(Err(error)) => return Err(error),
                    None => {}
                }
                began.get_or_insert_with(Instant::now);
                self.want(&mut state, key);
                self.pause(&mut state)?;
            }
        }
        if let Some(began) = began {
            state.counters.stall_ms += began.elapsed().as_secs_f64() * 1000.0;
        }
        Ok(got)
    }

    /// Orders an expert if it is not there, and if there is room for it.
    fn want(&self, state: &mut State, key: Key) {
        if let Wanted::Load(slot) = state.cache.want(key) {
            state.orders.push_back(Order::Expert { key, slot });
            self.shared.wake.notify_one();
        }
    }

    /// Orders what is foreseen, as far as there is room. What is there already is kept first, so
    /// that nothing of it makes room for the rest.
    fn guess(&self, state: &mut State) {
        let keys = std::mem::take(&mut state.foreseen);
        let (there, missing): (Vec<Key>, Vec<Key>) =
            keys.into_iter().partition(|key| state.cache.need(*key).is_some());
        for key in there.into_iter().chain(missing) {
            if let Wanted::Load(slot) = state.cache.guess(key) {
                if let Some(cell) = state.cells.get_mut(key.0) {
                    cell.experts.guessed += 1;
                }
                state.orders.push_back(Order::Expert { key, slot });
            }
        }
        self.shared.wake.notify_one();
    }

    /// Waits until the loader has news; `false` if it has none for a while.
    pub(super) fn pause(&self, state: &mut MutexGuard<'_, State>) -> Result<bool> {
        if let Some(over) = &state.over {
            let error = || Error::internal("store", "the loading thread has ended");
            return Err(over.clone().unwrap_or_else(error));
        }
        self.shared.wake.notify_one();
        Ok(!self.shared.news.wait_for(state, PATIENCE).timed_out())
    }

    /// What both threads know.
    pub fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.is_closing = true;
        self.shared.wake.notify_one();
        let end = Instant::now() + CLOSE_MAX;
        while state.over.is_none() {
            if self.shared.news.wait_until(&mut state, end).timed_out() {
                // The system keeps a read. Its thread ends, and frees the memory, when it comes.
                return;
            }
        }
        // Here and not when the loader's thread is gone: who closes may tell others of the room.
        state.release();
    }
}

/// Reads the unit that always stays, before anything else.
fn load_common(unit: &Unit, io: &mut dyn super::io::Io, watch: &Watch) -> Result<Option<Buffer>> {
    if unit.room == 0 {
        return Ok(None);
    }
    let (lent, mut rest) = Buffer::new(unit.room)?.lend();
    for run in &unit.runs {
        let Run { part, mut offset, needed, bytes } = *run;
        let next = rest.split_off(usize::try_from(bytes).unwrap_or(usize::MAX));
        let mut target = std::mem::replace(&mut rest, next);
        let end = offset + needed;
        let mut attempts = 0;
        while offset < end {
            io.submit(Read { tag: 0, part, offset, target });
            let lost = || Error::internal("store", "the system lost a read");
            let done = io.wait().ok_or_else(lost)?;
            target = done.read.target;
            let came = done.result.as_ref().map_or(0, |bytes| *bytes as u64);
            if offset + came >= end {
                break;
            }
            let kept = came / ALIGN * ALIGN;
            attempts += u32::from(kept == 0);
            if attempts == 3 {
                let error = done.result.err();
                let error = error.unwrap_or_else(|| std::io::ErrorKind::UnexpectedEof.into());
                return Err(watch.explain(part, offset, &error));
            }
            offset += kept;
            target = target.split_off(usize::try_from(kept).unwrap_or(usize::MAX));
        }
    }
    drop(rest);
    watch.check()?;
    let left = |_| Error::internal("store", "a target is left");
    lent.take_back().map(Some).map_err(left)
}
