//! One pass: who takes part, pages for what it writes, the groups, what becomes of the logits. When
//! pages run out, sessions at rest give theirs first, then stalled generations, then the youngest.

use crate::backend::{Batch, Row};
use crate::engine::answer::End;
use crate::engine::command::Finish;
use crate::engine::kv::pages::Pool;
use crate::engine::kv::sequence::pages_of;
use crate::engine::schedule::allot;
use crate::engine::stats::Stopwatch;
use crate::engine::thread::Engine;
use crate::engine::work::{Fate, Stage, Task, Work};
use crate::error::{Code, Error, Result};
use crate::plan::{GroupId, GroupKind};

/// What a work contributes to a pass.
pub(super) struct Part {
    number: u64,
    /// Rows from its first token that is not evaluated.
    rows: usize,
    /// Rows of those that give logits.
    selected: usize,
}

/// Milliseconds of a pass.
#[derive(Clone, Copy, Default)]
struct Took {
    /// Of the slowest group that computes all rows.
    slowest_ms: f64,
    /// Of waiting for weights.
    stall_ms: f64,
}

impl Engine {
    /// Who takes part in the next pass, with pages to write to. Starts works whose turn has come.
    pub(super) fn schedule(&mut self) -> Vec<Part> {
        let ready = self.ready();
        let works = ready.iter().filter_map(|&index| self.works.get(index));
        let scores = works.clone().filter(|work| matches!(work.task, Task::Score(_))).count();
        let pending = works.clone().map(|work| (work.number, self.pending_in_pass(work, scores)));
        let pending: Vec<(u64, usize)> = pending.collect();
        let is_mixed = works.clone().any(|work| work.pending() == 1);
        let counts: Vec<usize> = pending.iter().map(|part| part.1).collect();
        let rows = allot(&counts, self.pace.chunk(is_mixed));
        let shares = pending.iter().zip(rows).filter(|(_, rows)| *rows > 0);
        let shares: Vec<(u64, usize)> = shares.map(|(part, rows)| (part.0, rows)).collect();
        // Oldest first: it takes pages only from younger ones, which have no part yet.
        let mut parts = Vec::new();
        for (number, rows) in shares {
            if self.reserve(number, rows) {
                parts.push(Part { number, rows, selected: 0 });
            }
        }
        parts
    }

    /// Runs a pass and deals with its outcome.
    pub(super) fn pass(&mut self, mut parts: Vec<Part>) {
        let batch = self.batch(&mut parts);
        let watch = Stopwatch::start();
        let before = self.store.cost();
        self.in_pass = true;
        let outcome = self.compute(&batch, &parts);
        self.in_pass = false;
        match outcome {
            Ok(Some(Took { slowest_ms, stall_ms })) => {
                let pass_ms = watch.ms();
                self.pace.took(batch.rows.len(), pass_ms - stall_ms, slowest_ms);
                self.pace.waited(pass_ms, stall_ms);
                let now = self.store.cost();
                self.spend(&parts, (now.0 - before.0, now.1.saturating_sub(before.1)));
                let mut fates = self.deliver(&parts);
                self.explain(&batch, &mut fates);
                for (number, fate) in fates {
                    self.end(number, fate);
                }
            }
            // Nobody is left. What was written counts for nobody.
            Ok(None) => {}
            Err(error) => {
                for part in &parts {
                    self.end(part.number, Fate::Rejected(error.clone()));
                }
            }
        }
    }

    /// Indices of the works to step, oldest first, at most `max_concurrent`. A consumer that stalls
    /// holds back its own generation only.
    fn ready(&mut self) -> Vec<usize> {
        let mut ready = Vec::new();
        let mut is_full = false;
        for index in 0..self.works.len() {
            if ready.len() == self.bounds.generations {
                break;
            }
            let Some(work) = self.works.get(index).filter(|work| !work.is_blocked()) else {
                continue;
            };
            if work.stage != Stage::Running {
                // In the order of arrival: who finds no room lets nobody behind it start.
                is_full |= !ready.is_empty() && !self.has_room(work, ready.len());
                if is_full {
                    continue;
                }
                self.start(index);
            }
            ready.push(index);
        }
        ready
    }

    /// Whether a work could be evaluated while `beside` others grow by a page.
    fn has_room(&self, work: &Work, beside: usize) -> bool {
        let blocked = self.works.iter().filter(|work| work.is_blocked());
        let stalled: usize = blocked.map(|work| work.sequence.pages().len()).sum();
        let room = self.pool.available() + self.sessions.evictable(&self.pool) + stalled;
        pages_of(work.sequence.tokens.len()) + 1 + beside <= room
    }

    /// Its turn has come: what its session has evaluated need not be evaluated again.
    fn start(&mut self, index: usize) {
        let Some(work) = self.works.get_mut(index) else { return };
        let is_first = work.stage == Stage::Queued;
        work.stage = Stage::Running;
        let Task::Answer(answer) = &mut work.task else { return };
        if !is_first {
            return;
        }
        answer.clock.start();
        if let Some(session) = answer.session.and_then(|id| self.sessions.get(id).ok()) {
            work.sequence.adopt(&session.sequence, work.common, &mut self.pool);
        }
        // The last token is evaluated in any case: its logits are wanted.
        let last = work.sequence.tokens.len().saturating_sub(1);
        work.sequence.invalidate(last, &mut self.pool);
        answer.cached_tokens = work.sequence.evaluated();
    }

    /// Gets pages for `rows` more tokens of a work, from others if it must. `false`: not now.
    fn reserve(&mut self, number: u64, rows: usize) -> bool {
        loop {
            let Some(index) = self.index_of(number) else { return false };
            let Some(work) = self.works.get_mut(index) else { return false };
            if work.stage != Stage::Running {
                return false;
            }
            match work.sequence.reserve(rows, &mut self.pool, self.backend.as_mut()) {
                Ok(true) => return true,
                Ok(false) if self.make_way(number) => {}
                Ok(false) => {
                    self.starve(index);
                    if self.works.iter().all(|work| work.sequence.pages().is_empty()) {
                        self.end(number, Fate::Rejected(pool_too_small(&self.pool)));
                    }
                    return false;
                }
                Err(error) => {
                    self.end(number, Fate::Rejected(error));
                    return false;
                }
            }
        }
    }

    /// Takes pages from somebody for the sake of a work; `false` if nobody has to give.
    fn make_way(&mut self, number: u64) -> bool {
        if self.sessions.evict_page(&mut self.pool) {
            return true;
        }
        let may_give = |work: &Work| {
            let is_other = work.number != number && !work.sequence.pages().is_empty();
            is_other && (work.is_blocked() || work.number > number)
        };
        let works = self.works.iter().enumerate().filter(|(_, work)| may_give(work));
        let victim = works.max_by_key(|(_, work)| (work.is_blocked(), work.number));
        let Some((index, _)) = victim else { return false };
        self.starve(index);
        true
    }

    fn starve(&mut self, index: usize) {
        if let Some(work) = self.works.get_mut(index) {
            work.sequence.clear(&mut self.pool);
            work.stage = Stage::Starved;
        }
    }

    /// The rows of all parts; counts who gets logits.
    fn batch(&self, parts: &mut [Part]) -> Batch {
        let mut batch = Batch::default();
        for (part, sequence) in parts.iter_mut().zip(0u32..) {
            let Some(work) = self.index_of(part.number).and_then(|i| self.works.get(i)) else {
                continue;
            };
            let first = work.sequence.evaluated();
            let tokens = work.sequence.tokens.iter().enumerate().skip(first).take(part.rows);
            batch.rows.extend(tokens.map(|(index, &token)| Row {
                token,
                position: u32::try_from(index).unwrap_or(u32::MAX),
                sequence,
                wants_logits: work.wants_logits(index),
            }));
            let rows = batch.rows.iter().rev().take(part.rows);
            part.selected = rows.filter(|row| row.wants_logits).count();
            batch.sequences.push(work.sequence.pages().to_vec());
        }
        batch
    }

    /// Runs all groups; how long they took, or none if everybody has left on the way.
    fn compute(&mut self, batch: &Batch, parts: &[Part]) -> Result<Option<Took>> {
        self.backend.begin(batch)?;
        let (plan, store) = (self.plan.clone(), self.store.clone());
        let mut took = Took::default();
        for (group, id) in plan.groups.iter().zip(0u32..) {
            let watch = Stopwatch::start();
            let mut gives_up = || self.is_off(parts);
            let lease = store.acquire_unless(GroupId(id), &mut gives_up)?;
            let Some(lease) = lease else { return Ok(None) };
            took.stall_ms += watch.ms();
            let watch = Stopwatch::start();
            self.backend.run(GroupId(id), &lease, None)?;
            if group.kind != GroupKind::Output {
                took.slowest_ms = took.slowest_ms.max(watch.ms());
            }
            // What was read may not have been there: a file can shrink while it is mapped.
            lease.check()?;
            if self.is_off(parts) {
                return Ok(None);
            }
        }
        Ok(Some(took))
    }

    /// Does what was asked meanwhile; whether nobody wants the pass any more.
    fn is_off(&mut self, parts: &[Part]) -> bool {
        self.attend();
        self.is_closing || parts.iter().all(|part| self.index_of(part.number).is_none())
    }

    /// What a pass has cost, all who took part have paid.
    fn spend(&mut self, parts: &[Part], cost: (f64, u64)) {
        for work in &mut self.works {
            if let Task::Answer(answer) = &mut work.task
                && parts.iter().any(|part| part.number == work.number)
            {
                answer.clock.spend(cost);
            }
        }
    }

    /// Hands the logits out; who is over, and why.
    fn deliver(&mut self, parts: &[Part]) -> Vec<(u64, Fate)> {
        let Engine { backend, works, pool, words, .. } = self;
        let mut logits = backend.logits().chunks_exact(self.plan.n_vocab.max(1));
        let mut fates = Vec::new();
        for part in parts {
            let rows: Vec<&[f32]> = logits.by_ref().take(part.selected).collect();
            let Some(work) = works.iter_mut().find(|work| work.number == part.number) else {
                continue;
            };
            if rows.len() < part.selected {
                let error = Error::internal("a pass", "the backend gave too few logits");
                fates.push((part.number, Fate::Rejected(error)));
                continue;
            }
            let first = work.sequence.evaluated();
            work.sequence.advance(part.rows);
            let fate = match &mut work.task {
                Task::Answer(answer) => {
                    if answer.drawn() == 0 {
                        self.prompt_tokens += part.rows as u64;
                        answer.progress(work.sequence.evaluated());
                    }
                    let Some(row) = rows.first() else { continue };
                    self.completion_tokens += 1;
                    match answer.step(row, &mut work.sequence.tokens) {
                        Ok(None) => full(work.make_room(self.n_ctx, pool)),
                        Ok(Some(end)) => Some(Fate::Resolved(end)),
                        Err(error) => Some(Fate::Rejected(error)),
                    }
                }
                Task::Score(score) => {
                    self.prompt_tokens += part.rows as u64;
                    let tokens = &work.sequence.tokens;
                    let mut rows = rows.iter().enumerate();
                    let taken = rows.try_for_each(|(index, row)| {
                        score.take(row, tokens, first + index, words.as_ref())
                    });
                    match taken {
                        Err(error) => Some(Fate::Rejected(error)),
                        Ok(()) => (work.pending() == 0).then(|| Fate::Resolved(scored())),
                    }
                }
            };
            fates.extend(fate.map(|fate| (part.number, fate)));
        }
        fates
    }
}

/// What a full context means for a generation.
fn full(has_room: Result<bool>) -> Option<Fate> {
    match has_room {
        Ok(true) => None,
        Ok(false) => Some(Fate::Resolved(End { finish: Finish::Context, stopped_by: None })),
        Err(error) => Some(Fate::Rejected(error)),
    }
}

/// A score has no reason to end but that it is whole.
fn scored() -> End {
    End { finish: Finish::Stop, stopped_by: None }
}

fn pool_too_small(pool: &Pool) -> Error {
    let text = format!("the KV cache of {} pages is too small for this context", pool.total());
    Error::new(Code::InsufficientMemory, text)
        .with("memory", "kv")
        .with("required", pool.total() + 1)
        .with("available", pool.total())
}
