//! The loading thread: the second cursor over the plan. It runs ahead of the engine by as many
//! slots as the ring has, across the border of passes, and stops when they are full. What the
//! engine waits for is read first, and experts that are guessed last. It keeps a few blocks on
//! their way at a time.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::experts::{Key, Need};
use super::io::buffer::{Buffer, Lent, Target};
use super::io::{Done, Io, Opened, Opener, Read};
use super::probe::Probe;
use super::state::{Content, Counters, Order, Rows, Shared, State};
use super::trace;
use crate::error::{Error, Result};
use crate::plan::residency::{ALIGN, Run, Unit};

/// Times that a block is read before its error counts.
const ATTEMPTS_MAX: u32 = 3;
/// The same for interruptions, which mean nothing.
const INTERRUPTIONS_MAX: u32 = 1000;

/// What a job loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Group(usize),
    Expert(Key),
    /// What is left of an expert of a group that nobody needs after all.
    Dropped(usize),
    Rows,
}

/// One unit on its way.
struct Job {
    what: What,
    lent: Lent,
    /// Parts of it to submit, a block at a time.
    blocks: VecDeque<Block>,
    /// Blocks on their way.
    pending: usize,
    error: Option<Error>,
    /// When its first block was submitted.
    began: Option<Instant>,
    /// Bytes of weights.
    bytes: u64,
    /// Its memory is new: the system makes it while it is read into.
    is_new: bool,
    /// Bytes that came.
    came: u64,
    /// An expert that nobody has asked for yet.
    is_guess: bool,
    /// It was one when its first block was submitted.
    began_as_guess: bool,
}

/// What is left of a run, or of a block that came in part.
struct Block {
    part: u32,
    offset: u64,
    /// Bytes that must come; the rest may lie beyond the file's end.
    needed: usize,
    target: Target,
    attempts: u32,
    interruptions: u32,
}

impl Block {
    /// Cuts it after `at` bytes, fewer than it needs: the first part stays here.
    fn split_off(&mut self, at: usize) -> Block {
        let rest = Block {
            part: self.part,
            offset: self.offset + at as u64,
            needed: self.needed.saturating_sub(at),
            target: self.target.split_off(at),
            attempts: 0,
            interruptions: 0,
        };
        self.needed = self.needed.min(at);
        rest
    }
}

/// A block on its way: of which job, and what it was.
struct Pending {
    job: u64,
    needed: usize,
    attempts: u32,
    interruptions: u32,
}

pub struct Loader {
    pub(super) shared: Arc<Shared>,
    pub(super) io: Box<dyn Io>,
    pub(super) opener: Opener,
    /// By number, in the order in which they began.
    jobs: Vec<(u64, Job)>,
    pending: HashMap<u64, Pending>,
    numbers: u64,
    probe: Probe,
}

/// Tells everybody that the loader is gone, however it ended.
struct Over(Arc<Shared>);

impl Drop for Over {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.over.get_or_insert(None);
        state.counters.in_flight = 0;
        self.0.news.notify_all();
    }
}

/// Runs until the store is closed.
pub fn main(shared: &Arc<Shared>, opened: Opened, opener: Opener) {
    let _over = Over(shared.clone());
    let (pending, jobs) = (HashMap::new(), Vec::new());
    let probe = Probe::new(opened.io.depth());
    let (shared, io, numbers) = (shared.clone(), opened.io, 0);
    shared.state.lock().counters.way = probe.way();
    let mut loader = Loader { shared: shared.clone(), io, opener, jobs, pending, numbers, probe };
    if let Err(error) = loader.run() {
        shared.state.lock().over = Some(Some(error));
    }
    loader.io.cancel();
    while loader.io.wait().is_some() {}
}

impl Loader {
    fn run(&mut self) -> Result<()> {
        let shared = self.shared.clone();
        // When the last read came, or the first was submitted.
        let mut last = Instant::now();
        loop {
            let mut state = shared.state.lock();
            if state.is_closing {
                return Ok(());
            }
            if state.change.is_wanted() {
                // Nothing begins until what is on its way has come and places have changed.
                state.cache.settle(&mut |_| false);
                self.take_orders(&mut state);
                if self.jobs.is_empty() {
                    drop(state);
                    self.replace()?;
                    continue;
                }
            } else {
                self.take_orders(&mut state);
                self.plan_groups(&mut state);
            }
            state.counters.in_flight = self.pending.len();
            if self.jobs.is_empty() {
                if let Some(group) = state.demand.filter(|g| is_cold(&state, *g)) {
                    let error = Error::internal("store", "every slot of the ring is held");
                    fail(&mut state, group, error);
                    shared.news.notify_all();
                }
                shared.wake.wait(&mut state);
                continue;
            }
            let position = state.position;
            drop(state);
            if self.pending.is_empty() {
                last = Instant::now();
            }
            self.submit(position);
            // Only if the device is busy, and nothing else, the time it takes tells of the device.
            let is_busy = self.pending.len() == self.probe.way().depth;
            let is_making = self.jobs.iter().any(|(_, job)| job.is_new);
            let Some(done) = self.io.wait() else {
                return Err(Error::internal("store", "the system lost reads"));
            };
            let seconds = last.elapsed().as_secs_f64();
            last = Instant::now();
            match &done.result {
                Ok(bytes) if is_busy && !is_making => self.probe.came(*bytes as u64, seconds),
                Ok(_) if !is_making => self.probe.starved(),
                _ => self.probe.rested(),
            }
            let mut state = shared.state.lock();
            state.counters.busy_s += seconds;
            state.counters.way = self.probe.way();
            drop(state);
            self.done(done)?;
        }
    }

    /// Orders become jobs; experts that nobody needs any more, whether ordered or on their way, are
    /// called off as far as they were not submitted.
    fn take_orders(&mut self, state: &mut State) {
        self.call_off(state);
        while let Some(order) = state.orders.pop_front() {
            match order {
                Order::Expert { key, slot } => self.take_expert(state, key, slot),
                Order::Rows { runs, staging, bytes } => {
                    let unit = Unit { runs, bytes, ..Unit::default() };
                    self.begin(What::Rows, &unit, staging);
                }
            }
            self.shared.news.notify_all();
        }
    }

    fn take_expert(&mut self, state: &mut State, key: Key, slot: Option<Buffer>) {
        let need = state.cache.need(key).unwrap_or(Need::Nobody);
        if need == Need::Nobody {
            state.cache.forget(key);
            return state.cache.give(slot);
        }
        let (group, step, expert) = key;
        let units = self.shared.units.groups.get(group);
        let unit = units.and_then(|units| units.experts.get(step));
        let unit = unit.and_then(|e| e.units.get(expert as usize)).cloned();
        let room = self.shared.residence().expert_bytes;
        match (unit, slot.map_or_else(|| Buffer::new(room), Ok)) {
            (Some(unit), Ok(buffer)) => {
                self.begin(What::Expert(key), &unit, buffer);
                if let Some((_, job)) = self.jobs.last_mut() {
                    job.is_guess = need == Need::Guessed;
                }
            }
            (_, Err(error)) => state.cache.failed(key, error, None),
            (None, Ok(buffer)) => {
                let error = Error::internal("store", "an unknown expert");
                state.cache.failed(key, error, Some(buffer));
            }
        }
    }

    /// Sees who needs the experts that are on their way.
    fn call_off(&mut self, state: &mut State) {
        let mut index = 0;
        while let Some((_, job)) = self.jobs.get_mut(index) {
            if let What::Expert(key) = job.what {
                let need = state.cache.need(key);
                job.is_guess = need == Some(Need::Guessed);
                if need == Some(Need::Nobody) && !job.blocks.is_empty() {
                    state.cache.forget(key);
                    job.blocks.clear();
                    job.what = What::Dropped(key.0);
                }
            }
            if matches!(job.what, What::Dropped(_)) && job.pending == 0 {
                // None of it was submitted, or nothing is on its way just now.
                let (_, job) = self.jobs.remove(index);
                account(&mut state.counters, &job, job.came);
                state.cache.give(job.lent.take_back().ok());
                self.shared.news.notify_all();
            } else {
                index += 1;
            }
        }
    }

    /// Cold groups of the window become jobs as long as there are slots.
    fn plan_groups(&mut self, state: &mut State) {
        let shared = self.shared.clone();
        let residence = shared.residence();
        let ahead = residence.read_ahead;
        let window = state.window(&shared);
        let (position, n) = (state.position, shared.units.groups.len());
        let away = |group| distance(position, group, n);
        for &group in &window {
            let is_demanded = state.demand == Some(group);
            let is_nearer = |job: &&(u64, Job)| match job.1.what {
                What::Group(other) => away(other) < away(group),
                _ => false,
            };
            let nearer = self.jobs.iter().filter(is_nearer).count();
            if !is_demanded && (ahead == 0 || nearer > ahead) {
                break;
            }
            if !is_cold(state, group) {
                continue;
            }
            let Some(unit) = shared.units.groups.get(group).map(|units| &units.own) else { break };
            let is_pinned = residence.pinned.get(group).copied().unwrap_or(false);
            let buffer = if is_pinned {
                match Buffer::new(unit.room) {
                    Ok(buffer) => buffer,
                    Err(error) => {
                        fail(state, group, error);
                        shared.news.notify_all();
                        continue;
                    }
                }
            } else {
                let Some(buffer) = state.slot(&shared, &window) else { continue };
                buffer
            };
            if let Some(cell) = state.cells.get_mut(group) {
                cell.content = Content::Loading;
            }
            self.begin(What::Group(group), unit, buffer);
        }
    }

    /// A job for a unit: its runs, one behind the other in the buffer.
    fn begin(&mut self, what: What, unit: &Unit, buffer: Buffer) {
        let is_new = buffer.is_new();
        let (lent, mut rest) = buffer.lend();
        let mut blocks = VecDeque::new();
        for &Run { part, offset, bytes, needed } in &unit.runs {
            let next = rest.split_off(usize::try_from(bytes).unwrap_or(usize::MAX));
            let target = std::mem::replace(&mut rest, next);
            let needed = usize::try_from(needed).unwrap_or(usize::MAX);
            let (attempts, interruptions) = (0, 0);
            blocks.push_back(Block { part, offset, needed, target, attempts, interruptions });
        }
        self.numbers += 1;
        let (pending, error, began, bytes) = (0, None, None, unit.bytes);
        let (came, is_guess, began_as_guess) = (0, false, false);
        let job = Job {
            what,
            lent,
            blocks,
            pending,
            error,
            began,
            bytes,
            is_new,
            came,
            is_guess,
            began_as_guess,
        };
        self.jobs.push((self.numbers, job));
    }

    /// Fills the queue: first what was ordered, then the groups in the order in which the engine
    /// comes to them, then guesses.
    fn submit(&mut self, position: usize) {
        let n = self.shared.units.groups.len();
        let way = self.probe.way();
        let most = usize::try_from(way.block_bytes).unwrap_or(usize::MAX);
        while self.pending.len() < way.depth.min(self.io.depth()) {
            let open = self.jobs.iter_mut().filter(|(_, job)| !job.blocks.is_empty());
            let rank = |(number, job): &&mut (u64, Job)| match job.what {
                What::Expert(_) if job.is_guess => (2, 0, *number),
                What::Expert(_) | What::Dropped(_) | What::Rows => (0, 0, *number),
                What::Group(group) => (1, distance(position, group, n), *number),
            };
            let Some((number, job)) = open.min_by_key(rank) else { return };
            let Some(mut block) = job.blocks.pop_front() else { return };
            if block.target.size() > most {
                job.blocks.push_front(block.split_off(most));
            }
            job.pending += 1;
            if job.began.is_none() {
                (job.began, job.began_as_guess) = (Some(Instant::now()), job.is_guess);
            }
            let Block { part, offset, needed, target, attempts, interruptions } = block;
            self.numbers += 1;
            let pending = Pending { job: *number, needed, attempts, interruptions };
            self.pending.insert(self.numbers, pending);
            self.io.submit(Read { tag: self.numbers, part, offset, target });
        }
    }

    /// A read is over: well, partly, or not at all.
    fn done(&mut self, Done { read, result }: Done) -> Result<()> {
        let lost = || Error::internal("store", "a read that nobody asked for");
        let pending = self.pending.remove(&read.tag).ok_or_else(lost)?;
        let Read { part, offset, mut target, .. } = read;
        let Pending { job: number, needed, mut attempts, mut interruptions } = pending;
        let index = self.jobs.iter().position(|job| job.0 == number).ok_or_else(lost)?;
        let (_, job) = self.jobs.get_mut(index).ok_or_else(lost)?;
        job.pending -= 1;
        if let Ok(bytes) = &result {
            job.came += *bytes as u64;
            self.shared.state.lock().counters.device_bytes += *bytes as u64;
        }
        let retry = match result {
            Ok(bytes) if bytes >= needed => None,
            Ok(0) => Some((0, Some(io::Error::from(io::ErrorKind::UnexpectedEof)))),
            // Goes on where the last whole page ended: direct reads want that.
            Ok(bytes) => Some((bytes / ALIGN as usize * ALIGN as usize, None)),
            Err(error) => Some((0, Some(error))),
        };
        if let (Some((kept, error)), None) = (retry, &job.error) {
            let target = if kept > 0 { target.split_off(kept) } else { target };
            let is_interruption = error.as_ref().is_some_and(is_interruption);
            // A short read is no error, even if it ends within a page.
            if is_interruption || error.is_none() {
                interruptions += 1;
            } else {
                attempts += 1;
            }
            let at = offset + kept as u64;
            if attempts >= ATTEMPTS_MAX || interruptions >= INTERRUPTIONS_MAX {
                let error = error.unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                job.error = Some(self.shared.watch.explain(part, at, &error));
                job.blocks.clear();
            } else {
                let (offset, needed) = (at, needed - kept);
                let block = Block { part, offset, needed, target, attempts, interruptions };
                job.blocks.push_front(block);
            }
        } else {
            drop(target);
        }
        if job.pending == 0 && job.blocks.is_empty() {
            let (_, job) = self.jobs.swap_remove(index);
            self.jobs.sort_by_key(|job| job.0);
            self.finish(job)?;
        }
        Ok(())
    }

    /// A job is over: its bytes are there, or its error is.
    fn finish(&mut self, mut job: Job) -> Result<()> {
        // Bytes of a file that changed meanwhile are of neither version.
        let changed = || self.shared.watch.check();
        let outcome = job.error.take().map_or_else(changed, Err);
        let mut state = self.shared.state.lock();
        let bytes = match (job.what, &outcome) {
            (What::Dropped(_), _) => job.came,
            (_, Ok(())) => job.bytes,
            (_, Err(_)) => 0,
        };
        account(&mut state.counters, &job, bytes);
        let (what, lent) = (job.what, job.lent.take_back());
        let lent = lent.map_err(|_| Error::internal("store", "a target is left"))?;
        match (what, outcome) {
            (What::Rows, outcome) => state.rows = Rows::Done(outcome, Some(lent)),
            (What::Expert(key), Ok(())) => state.cache.came(key, lent),
            (What::Expert(key), Err(error)) => state.cache.failed(key, error, Some(lent)),
            (What::Dropped(_), _) => state.cache.give(Some(lent)),
            (What::Group(group), Ok(())) => {
                if let Some(cell) = state.cells.get_mut(group) {
                    cell.content = Content::Ready(Arc::new(lent));
                }
            }
            (What::Group(group), Err(error)) => {
                fail(&mut state, group, error);
                if !self.shared.residence().pinned.get(group).copied().unwrap_or(true) {
                    state.free.push(lent);
                }
            }
        }
        self.shared.news.notify_all();
        Ok(())
    }
}

/// A job is over, of which so many bytes count.
fn account(counters: &mut Counters, job: &Job, bytes: u64) {
    let groups = match job.what {
        What::Group(group) => {
            counters.group_bytes += bytes;
            Some(group)
        }
        What::Expert((group, ..)) | What::Dropped(group) => {
            counters.expert_bytes += bytes;
            Some(group)
        }
        What::Rows => {
            counters.gathered_bytes += bytes;
            None
        }
    };
    counters.guessed_bytes += if job.began_as_guess { bytes } else { 0 };
    if let Some((group, began)) = groups.zip(job.began) {
        trace::note(trace::What::Read, group, began);
    }
}

/// Groups between the engine's position and a group.
fn distance(position: usize, group: usize, n: usize) -> usize {
    (group + n - position) % n.max(1)
}

fn is_cold(state: &State, group: usize) -> bool {
    state.cells.get(group).is_some_and(|cell| matches!(cell.content, Content::Cold))
}

fn fail(state: &mut State, group: usize, error: Error) {
    if let Some(cell) = state.cells.get_mut(group) {
        cell.content = Content::Failed(error);
    }
}

fn is_interruption(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
}
