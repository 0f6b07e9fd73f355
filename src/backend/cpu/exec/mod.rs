//! Runs the steps of a group over a batch. It knows steps, slots and kernels; not how a kernel
//! computes, nor where weights come from.

mod angles;
mod experts;
mod foresee;
mod jobs;

use super::arena::{self, Arena, Layout};
use super::crew::Crew;
use super::kernel::acts::ActCache;
use super::kernel::attend::job::{self, Attention, Span};
use super::kernel::buffer::Buffer;
use super::kernel::float::dequantise;
use super::kernel::job::{Desk, Piece, append};
use super::kernel::local::Local;
use super::kv::Pages;
use super::pool::Pool;
use super::table::Table;
use crate::backend::{Batch, Probe, Row};
use crate::error::{Error, Result};
use crate::plan::{Attend, GroupId, Op, Plan, Stage, Step, ValueId, WeightId};
use crate::store::Lease;
use angles::Ropes;
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

/// Everything that a pass needs besides the weights.
pub struct Exec {
    plan: Arc<Plan>,
    table: Table,
    pool: Pool,
    /// Chooses how many threads take part, if nobody has said.
    crew: Option<Crew>,
    /// What the pass has taken so far.
    took: Took,
    layout: Layout,
    arena: Arena,
    desk: Desk,
    experts: experts::Room,
    /// The stages of each group.
    stages: Arc<[Vec<Stage>]>,
    pieces: Vec<Piece>,
    ropes: Ropes,
    batch: Batch,
    tokens: Vec<u32>,
    positions: Vec<u32>,
    spans: Vec<Span>,
    /// Batch row of each selected row.
    selected: Vec<usize>,
}

/// Times of a pass.
#[derive(Default)]
struct Took {
    /// In groups.
    time: Duration,
    /// [`Pool::late`] when it began.
    late_before: Duration,
}

impl Exec {
    /// Prepares to run a plan.
    ///
    /// # Errors
    /// `ERR_INSUFFICIENT_MEMORY`.
    pub fn new(plan: Arc<Plan>, table: Table, pool: Pool, crew: Option<Crew>) -> Result<Self> {
        Ok(Exec {
            layout: Layout::new(&plan),
            stages: plan.groups.iter().map(|group| group.stages()).collect(),
            desk: desk(&plan, pool.threads())?,
            table,
            pool,
            crew,
            took: Took::default(),
            arena: Arena::default(),
            experts: experts::Room::default(),
            pieces: Vec::new(),
            ropes: Ropes::new(&plan),
            batch: Batch::default(),
            tokens: Vec::new(),
            positions: Vec::new(),
            spans: Vec::new(),
            selected: Vec::new(),
            plan,
        })
    }

    /// How often all threads have waited for each other so far.
    pub fn barriers(&self) -> u64 {
        self.pool.barriers()
    }

    /// The kernels.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Bytes of activations and scratch.
    pub fn bytes(&self) -> usize {
        let desk = &self.desk;
        let turned: usize = desk.turned.iter().map(|turned| turned.lock().bytes()).sum();
        let acts = desk.acts.read().bytes() + desk.vector.lock().bytes();
        let attention = desk.attention.bytes() + turned + self.ropes.bytes();
        self.arena.bytes() + acts + self.experts.bytes() + attention
    }

    /// Bytes that a page of the KV cache may need for attention to it.
    pub fn page_bytes(&self) -> usize {
        self.desk.attention.page_bytes()
    }

    /// Other threads for the passes to come.
    ///
    /// # Errors
    /// `ERR_INSUFFICIENT_MEMORY`.
    pub fn set_pool(&mut self, pool: Pool, crew: Option<Crew>) -> Result<()> {
        self.desk = desk(&self.plan, pool.threads())?;
        (self.pool, self.crew, self.took) = (pool, crew, Took::default());
        Ok(())
    }

    /// Lets go of what passes have grown.
    pub fn trim(&mut self) {
        self.arena = Arena::default();
        *self.desk.acts.get_mut() = ActCache::default();
        self.experts = experts::Room::default();
        self.ropes = Ropes::new(&self.plan);
    }

    /// Bytes that a pass of so many rows takes beside what is held in any case.
    pub fn activation_bytes(&self, rows: usize, selected: usize) -> usize {
        self.layout.bytes(rows, selected)
            + ActCache::bytes_of(Self::widest(&self.plan) * rows.max(selected), 1)
            + experts::Room::bytes_of(&self.plan, rows)
            + rows * (self.ropes.row_bytes() + size_of::<Row>() + 2 * size_of::<usize>())
    }

    /// Takes a checked batch and makes room for it.
    ///
    /// # Errors
    /// `ERR_INSUFFICIENT_MEMORY`.
    pub fn begin(&mut self, batch: &Batch) -> Result<()> {
        self.choose_threads();
        // Piece by piece: that keeps the memory of the last batch.
        self.batch.rows.clone_from(&batch.rows);
        self.batch.sequences.clone_from(&batch.sequences);
        self.positions.clear();
        self.positions.extend(batch.rows.iter().map(|row| row.position));
        self.selected.clear();
        let wanted = |(i, row): (usize, &Row)| row.wants_logits.then_some(i);
        self.selected.extend(batch.rows.iter().enumerate().filter_map(wanted));
        self.spans.clear();
        for (i, row) in batch.rows.iter().enumerate() {
            let (sequence, position) = (row.sequence as usize, row.position as usize);
            match self.spans.last_mut() {
                Some(span)
                    if span.sequence == sequence && span.position + span.rows.len() == position =>
                {
                    span.rows.end = i + 1;
                }
                _ => self.spans.push(Span { rows: i..i + 1, position, sequence }),
            }
        }
        self.ropes.forget();
        let acts = self.desk.acts.get_mut();
        acts.clear();
        acts.reserve(Self::widest(&self.plan) * batch.rows.len())?;
        let n = batch.rows.len();
        self.arena.reserve(&self.layout, n, self.selected.len())?;
        self.experts.reserve(&self.plan, n)
    }

    /// As many threads as the passes before have shown to be of use.
    fn choose_threads(&mut self) {
        let late = self.pool.late();
        let took = std::mem::replace(&mut self.took, Took { late_before: late, ..Took::default() });
        if let Some(crew) = self.crew.as_mut().filter(|_| !took.time.is_zero()) {
            crew.saw(self.batch.rows.len(), took.time, late.saturating_sub(took.late_before));
            self.pool.set_active(crew.threads());
        }
    }

    /// Rows of a value in this pass.
    fn rows(&self, value: ValueId) -> usize {
        if self.plan.value(value).selected { self.selected.len() } else { self.batch.rows.len() }
    }

    /// f32 numbers of a value in this pass.
    fn len(&self, value: ValueId) -> usize {
        self.rows(value) * arena::width(&self.plan, value)
    }

    /// A value that an earlier step wrote.
    pub fn value(&self, value: ValueId) -> &[f32] {
        self.arena.get(self.layout.slot(value), self.len(value))
    }

    /// Runs a group.
    ///
    /// # Errors
    /// `ERR_INTERNAL` for a plan or weights that do not fit; `ERR_INSUFFICIENT_MEMORY`.
    pub fn run(
        &mut self,
        id: GroupId,
        pages: &mut Pages,
        weights: &Lease<'_>,
        probe: Option<Probe<'_>>,
    ) -> Result<()> {
        let start = Instant::now();
        let done = self.run_steps(id, pages, weights, probe);
        self.took.time += start.elapsed();
        done
    }

    fn run_steps(
        &mut self,
        id: GroupId,
        pages: &mut Pages,
        weights: &Lease<'_>,
        mut probe: Option<Probe<'_>>,
    ) -> Result<()> {
        if probe.is_none() && self.is_few() {
            return self.jobs(id, pages, weights);
        }
        let Some(probe) = probe.as_mut() else {
            return self.stages(id, pages, weights);
        };
        let plan = Arc::clone(&self.plan);
        for (index, step) in plan.group(id).steps.iter().enumerate() {
            self.step(step, pages, weights)?;
            probe(id, index, step.output, self.value(step.output));
        }
        Ok(())
    }

    /// Runs one step as it is written.
    fn step(&mut self, step: &Step, pages: &mut Pages, weights: &Lease<'_>) -> Result<()> {
        if self.rows(step.output) == 0 {
            return Ok(());
        }
        if step.op == Op::Linear {
            return self.linear(step, pages, weights);
        }
        if !matches!(step.op, Op::Embed | Op::Attend(_) | Op::Experts(_)) {
            return self.local(step, weights);
        }
        let slot = self.layout.slot(step.output);
        let mut buffer = self.arena.take(slot);
        let len = self.len(step.output);
        let done = match buffer.get_mut(..len) {
            Some(out) => self.compute(step, pages, weights, out),
            None => Err(Error::internal("exec", "a slot is too small")),
        };
        self.arena.put(slot, buffer);
        done
    }

    fn compute(
        &mut self,
        step: &Step,
        pages: &mut Pages,
        weights: &Lease<'_>,
        out: &mut [f32],
    ) -> Result<()> {
        match &step.op {
            Op::Embed => self.embed(step, weights, out),
            Op::Attend(attend) => self.attend(step, pages, out, attend),
            Op::Experts(act) => self.experts(step, weights, out, *act),
            op => Err(Error::internal("exec", op.name())),
        }
    }

    /// A step that needs nothing but its rows.
    fn local(&mut self, step: &Step, weights: &Lease<'_>) -> Result<()> {
        self.turn(step, weights)?;
        let width = match (&step.op, step.weights.first()) {
            (Op::Norm(_), Some(id)) => self.load_vector(*id, weights)?,
            _ => 0,
        };
        let rows = [self.batch.rows.len(), self.selected.len()];
        let local = Local {
            step,
            bank: &self.arena.bank(&self.layout, &self.plan, rows),
            tier: self.table.tier(),
            vector: &self.desk.vector.get_mut()[..width],
            angles: self.ropes.get(step),
            selected: &self.selected,
        };
        local.run(&mut self.pool)
    }

    /// Sees to the angles of a rotation.
    fn turn(&mut self, step: &Step, weights: &Lease<'_>) -> Result<()> {
        if self.ropes.is_missing(step) {
            let n = step.weights.first().map(|id| self.load_vector(*id, weights)).transpose()?;
            let factors = n.map(|n| &self.desk.vector.get_mut()[..n]);
            self.ropes.fill(step, factors, &self.positions);
        }
        Ok(())
    }

    /// An input of a step.
    fn input(&self, step: &Step, index: usize) -> Result<&[f32]> {
        let missing = || Error::internal("exec", format!("{:?} lacks input {index}", step.op));
        step.inputs.get(index).map(|id| self.value(*id)).ok_or_else(missing)
    }

    /// A weight of a step.
    fn weight(step: &Step, index: usize) -> Result<WeightId> {
        let missing = || Error::internal("exec", format!("{:?} lacks weight {index}", step.op));
        step.weights.get(index).copied().ok_or_else(missing)
    }

    fn embed(&mut self, step: &Step, weights: &Lease<'_>, out: &mut [f32]) -> Result<()> {
        let id = Self::weight(step, 0)?;
        let (kind, width) = (self.plan.weight(id).kind, arena::width(&self.plan, step.output));
        self.tokens.clear();
        self.tokens.extend(self.batch.rows.iter().map(|row| row.token));
        weights.gather(id, self.plan.n_vocab, &self.tokens, &mut |row, bytes| {
            let out = out.get_mut(row * width..(row + 1) * width);
            dequantise(kind, bytes, out.unwrap_or(&mut []))
        })
    }

    /// A small weight as f32 in the vector of the desk; gives its length.
    fn load_vector(&mut self, id: WeightId, weights: &Lease<'_>) -> Result<usize> {
        let weight = self.plan.weight(id);
        let n: usize = weight.shape.iter().product();
        let vector = self.desk.vector.get_mut();
        vector.grow(n)?;
        dequantise(weight.kind, weights.bytes(id), &mut vector[..n])?;
        Ok(n)
    }

    fn attend(
        &mut self,
        step: &Step,
        pages: &mut Pages,
        out: &mut [f32],
        attend: &Attend,
    ) -> Result<()> {
        let tier = self.table.tier();
        let &[q, k, v] = &step.inputs[..] else {
            return Err(Error::internal("exec", "attention without q, k, v"));
        };
        // Fields are borrowed one by one: the pool mutably, the values not.
        let (arena, layout) = (&self.arena, &self.layout);
        let [q, k, v] = [q, k, v].map(|id| arena.get(layout.slot(id), self.len(id)));
        for span in &self.spans {
            let sequence = &self.batch.sequences[span.sequence];
            append(pages, tier, attend, (span, sequence), (k, v));
        }
        let kv = pages.layer(attend.kv).ok_or_else(|| Error::internal("exec", "no kv layer"))?;
        let pages = &*pages;
        let sequences = &self.batch.sequences;
        let page = |sequence: usize, tile: usize| pages.view(attend.kv, sequences[sequence][tile]);
        let job = Attention { attend, kv, q, spans: &self.spans };
        job::attend((tier, &mut self.pool), &mut self.desk.attention, &job, &page, out)
    }
}

/// Working memory for a plan on so many threads.
fn desk(plan: &Plan, threads: usize) -> Result<Desk> {
    let mut attention = job::Room::new(threads);
    let (mut queries, mut heads) = (0, 0);
    for step in plan.groups.iter().flat_map(|group| &group.steps) {
        if let Op::Attend(attend) = &step.op {
            attention.reserve(attend)?;
            queries = queries.max(jobs::ROWS_FEW * attend.n_head * attend.head_dim_k);
            heads = heads.max(attend.n_head_kv);
        }
    }
    let widest = plan.weights.iter().filter(|w| w.shape.len() == 1).map(|w| w.shape[0]).max();
    let turned = (0..threads).map(|_| Buffer::new(queries).map(Mutex::new));
    Ok(Desk {
        acts: RwLock::new(ActCache::default()),
        vector: Mutex::new(Buffer::new(widest.unwrap_or(0))?),
        solo: Mutex::new(Pool::new(1)?),
        attention,
        turned: turned.collect::<Result<_>>()?,
        missing: (0..heads + 2).map(|_| AtomicUsize::new(0)).collect(),
        failed: Mutex::new(None),
    })
}
