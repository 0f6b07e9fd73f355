//! Runs the steps of a group over a batch. It knows steps, slots and kernels; not how a kernel
//! computes, nor where weights come from.

mod experts;
mod linear;

use super::arena::{self, Arena, Layout};
use super::crew::Crew;
use super::kernel::act::GatedAct;
use super::kernel::acts::ActCache;
use super::kernel::attend::job::{self, Attention, Span};
use super::kernel::buffer::Buffer;
use super::kernel::drive;
use super::kernel::float::dequantise;
use super::kernel::math::AddTo;
use super::kernel::norm::RmsNorm;
use super::kernel::rope::{Angles, rotate};
use super::kernel::route::route;
use super::kv::Pages;
use super::pool::Pool;
use super::table::Table;
use crate::backend::{Batch, PAGE_TOKENS, Probe, Row};
use crate::error::{Error, Result};
use crate::plan::{Attend, GroupId, NormKind, Op, Plan, Rope, Step, ValueId, WeightId};
use crate::store::Lease;
use std::ops::Range;
use std::sync::Arc;
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
    acts: ActCache,
    experts: experts::Room,
    attention: job::Room,
    /// Steps of each group that run as one.
    runs: Arc<[Vec<Range<usize>>]>,
    /// A norm's weights, a bias: small vectors as f32.
    vector: Buffer<f32>,
    ropes: Vec<(Rope, Option<WeightId>, Angles, bool)>,
    batch: Batch,
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

/// What each thread needs for the plan's attention.
fn room_of(plan: &Plan, threads: usize) -> Result<job::Room> {
    let mut room = job::Room::new(threads);
    for step in plan.groups.iter().flat_map(|group| &group.steps) {
        if let Op::Attend(attend) = &step.op {
            room.reserve(attend)?;
        }
    }
    Ok(room)
}

impl Exec {
    /// Prepares to run a plan.
    ///
    /// # Errors
    /// `ERR_INSUFFICIENT_MEMORY`.
    pub fn new(plan: Arc<Plan>, table: Table, pool: Pool, crew: Option<Crew>) -> Result<Self> {
        let attention = room_of(&plan, pool.threads())?;
        let mut ropes: Vec<(Rope, Option<WeightId>, Angles, bool)> = Vec::new();
        for step in plan.groups.iter().flat_map(|group| &group.steps) {
            if let Op::Rope(rope) = &step.op {
                let factors = step.weights.first().copied();
                if !ropes.iter().any(|(r, f, ..)| same_angles(r, rope) && *f == factors) {
                    ropes.push((rope.clone(), factors, Angles::default(), false));
                }
            }
        }
        let widest = plan.weights.iter().filter(|w| w.shape.len() == 1).map(|w| w.shape[0]).max();
        Ok(Exec {
            layout: Layout::new(&plan),
            runs: plan.groups.iter().map(|group| group.runs()).collect(),
            table,
            pool,
            crew,
            took: Took::default(),
            arena: Arena::default(),
            acts: ActCache::default(),
            experts: experts::Room::default(),
            attention,
            vector: Buffer::new(widest.unwrap_or(0))?,
            ropes,
            batch: Batch::default(),
            positions: Vec::new(),
            spans: Vec::new(),
            selected: Vec::new(),
            plan,
        })
    }

    /// The kernels.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Bytes of activations and scratch.
    pub fn bytes(&self) -> usize {
        let angles: usize = self.ropes.iter().map(|rope| rope.2.bytes()).sum();
        self.arena.bytes()
            + self.acts.bytes()
            + self.experts.bytes()
            + self.attention.bytes()
            + angles
    }

    /// Bytes that a page of the KV cache may need for attention to it.
    pub fn page_bytes(&self) -> usize {
        self.attention.page_bytes()
    }

    /// Other threads for the passes to come.
    ///
    /// # Errors
    /// `ERR_INSUFFICIENT_MEMORY`.
    pub fn set_pool(&mut self, pool: Pool, crew: Option<Crew>) -> Result<()> {
        self.attention = room_of(&self.plan, pool.threads())?;
        (self.pool, self.crew, self.took) = (pool, crew, Took::default());
        Ok(())
    }

    /// Lets go of what passes have grown.
    pub fn trim(&mut self) {
        self.arena = Arena::default();
        self.acts = ActCache::default();
        self.experts = experts::Room::default();
        self.ropes.iter_mut().for_each(|rope| (rope.2, rope.3) = (Angles::default(), false));
    }

    /// Bytes that a pass of so many rows takes beside what is held in any case.
    pub fn activation_bytes(&self, rows: usize, selected: usize) -> usize {
        let angles = self.ropes.iter().map(|rope| rope.0.freqs.len() * size_of::<(f32, f32)>());
        self.layout.bytes(rows, selected)
            + ActCache::bytes_of(linear::widest(&self.plan) * rows.max(selected), 1)
            + experts::Room::bytes_of(&self.plan, rows)
            + rows * (angles.sum::<usize>() + size_of::<Row>() + 2 * size_of::<usize>())
    }

    /// Takes a checked batch and makes room for it.
    ///
    /// # Errors
    /// `ERR_INSUFFICIENT_MEMORY`.
    pub fn begin(&mut self, batch: &Batch) -> Result<()> {
        self.choose_threads();
        self.batch.clone_from(batch);
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
        for rope in &mut self.ropes {
            rope.3 = false;
        }
        self.acts.clear();
        let n = batch.rows.len();
        self.arena.reserve(&self.layout, n, self.selected.len())?;
        self.experts.reserve(&self.plan, n)?;
        self.acts.reserve(linear::widest(&self.plan) * n)
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
        let plan = Arc::clone(&self.plan);
        let steps = &plan.group(id).steps;
        let runs = Arc::clone(&self.runs);
        for run in runs.get(id.0 as usize).map_or(&[][..], |runs| runs) {
            let list = &steps[run.clone()];
            if probe.is_none() && list.len() > 1 {
                self.linears(list, weights)?;
                continue;
            }
            for (index, step) in run.clone().zip(list) {
                self.step(step, pages, weights)?;
                if let Some(probe) = probe.as_mut() {
                    probe(id, index, step.output, self.value(step.output));
                }
            }
        }
        Ok(())
    }

    /// Runs one step as it is written.
    fn step(&mut self, step: &Step, pages: &mut Pages, weights: &Lease<'_>) -> Result<()> {
        if self.rows(step.output) == 0 {
            return Ok(());
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
        let tier = self.table.tier();
        let width = arena::width(&self.plan, step.output);
        match &step.op {
            Op::Embed => self.embed(step, weights, out, width),
            Op::Norm(NormKind::Rms { eps }) => self.norm(step, weights, out, *eps),
            Op::Linear => self.linear(&[step], weights, &mut [out]),
            Op::Rope(rope) => self.rope(step, weights, out, rope),
            Op::Attend(attend) => self.attend(step, pages, out, attend),
            Op::GatedAct(act) => {
                out.copy_from_slice(self.input(step, 0)?);
                let up = self.arena.get(self.layout.slot(step.inputs[1]), out.len());
                drive::map_rows(&mut self.pool, out, width, &|row, gate| {
                    let up = &up[row * width..(row + 1) * width];
                    tier.call(GatedAct { act: *act, gate, up });
                })
            }
            Op::Route(spec) => {
                let n = spec.n_expert;
                let mut scores = vec![0.0; n];
                let inputs = self.input(step, 0)?;
                for (out, x) in out.chunks_exact_mut(width).zip(inputs.chunks_exact(n)) {
                    scores.copy_from_slice(x);
                    route(tier, spec, &mut scores, out);
                }
                Ok(())
            }
            Op::Experts(act) => self.experts(step, weights, out, *act),
            Op::Add => {
                out.copy_from_slice(self.input(step, 0)?);
                let b = self.arena.get(self.layout.slot(step.inputs[1]), out.len());
                drive::map_rows(&mut self.pool, out, width, &|row, out| {
                    tier.call(AddTo(out, &b[row * width..(row + 1) * width]));
                })
            }
            Op::Select => {
                let x = self.input(step, 0)?;
                for (out, row) in out.chunks_exact_mut(width).zip(&self.selected) {
                    out.copy_from_slice(&x[row * width..(row + 1) * width]);
                }
                Ok(())
            }
        }
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

    fn embed(
        &mut self,
        step: &Step,
        weights: &Lease<'_>,
        out: &mut [f32],
        width: usize,
    ) -> Result<()> {
        let id = Self::weight(step, 0)?;
        let kind = self.plan.weight(id).kind;
        let tokens: Vec<u32> = self.batch.rows.iter().map(|row| row.token).collect();
        weights.gather(id, self.plan.n_vocab, &tokens, &mut |row, bytes| {
            let out = out.get_mut(row * width..(row + 1) * width);
            dequantise(kind, bytes, out.unwrap_or(&mut []))
        })
    }

    /// A small weight as f32 in `self.vector`; gives its length.
    fn load_vector(&mut self, id: WeightId, weights: &Lease<'_>) -> Result<usize> {
        let weight = self.plan.weight(id);
        let n: usize = weight.shape.iter().product();
        self.vector.grow(n)?;
        dequantise(weight.kind, weights.bytes(id), &mut self.vector[..n])?;
        Ok(n)
    }

    fn norm(&mut self, step: &Step, weights: &Lease<'_>, out: &mut [f32], eps: f32) -> Result<()> {
        let tier = self.table.tier();
        let width = self.load_vector(Self::weight(step, 0)?, weights)?;
        let x = self.arena.get(self.layout.slot(step.inputs[0]), out.len());
        let weight = &self.vector[..width];
        drive::map_rows(&mut self.pool, out, width, &|row, out| {
            let x = &x[row * width..(row + 1) * width];
            tier.call(RmsNorm { x, weight, eps, out });
        })
    }

    fn rope(
        &mut self,
        step: &Step,
        weights: &Lease<'_>,
        out: &mut [f32],
        rope: &Rope,
    ) -> Result<()> {
        let factors = step.weights.first().copied();
        let found = |(r, f, ..): &&mut (Rope, Option<WeightId>, Angles, bool)| {
            same_angles(r, rope) && *f == factors
        };
        let missing = || Error::internal("exec", "a rotation without angles");
        let n = factors.map(|id| self.load_vector(id, weights)).transpose()?;
        let (_, _, angles, filled) = self.ropes.iter_mut().find(found).ok_or_else(missing)?;
        if !*filled {
            angles.fill(rope, n.map(|n| &self.vector[..n]), &self.positions);
            *filled = true;
        }
        let angles = &*angles;
        let width = rope.n_head * rope.head_dim;
        let x = self.arena.get(self.layout.slot(step.inputs[0]), out.len());
        drive::map_rows(&mut self.pool, out, width, &|row, out| {
            out.copy_from_slice(&x[row * width..(row + 1) * width]);
            rotate(rope, angles.row(row), out);
        })
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
        let k_width = attend.n_head_kv * attend.head_dim_k;
        let v_width = attend.n_head_kv * attend.head_dim_v;
        for span in &self.spans {
            let mut row = span.rows.start;
            while row < span.rows.end {
                let position = span.position + row - span.rows.start;
                let slot = position % PAGE_TOKENS;
                let end = span.rows.end.min(row + PAGE_TOKENS - slot);
                let page = self.batch.sequences[span.sequence][position / PAGE_TOKENS];
                let parts = (&k[row * k_width..end * k_width], &v[row * v_width..end * v_width]);
                pages.append(tier, attend.kv, (page, slot), parts);
                row = end;
            }
        }
        let kv = pages.layer(attend.kv).ok_or_else(|| Error::internal("exec", "no kv layer"))?;
        let pages = &*pages;
        let sequences = &self.batch.sequences;
        let page = |sequence: usize, tile: usize| pages.view(attend.kv, sequences[sequence][tile]);
        let job = Attention { attend, kv, q, spans: &self.spans };
        job::attend((tier, &mut self.pool), &mut self.attention, &job, &page, out)
    }
}

/// Whether two rotations turn by the same angles.
fn same_angles(a: &Rope, b: &Rope) -> bool {
    a.magnitude.to_bits() == b.magnitude.to_bits()
        && (Arc::ptr_eq(&a.freqs, &b.freqs) || a.freqs == b.freqs)
}
