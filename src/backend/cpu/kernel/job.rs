//! The stages of a group as one job of the pool. Threads take pieces of columns and heads; what a
//! piece leads to at once (an activation, a residual) is done with it, and what wants whole rows
//! (norms, quantising) by the thread that ends a stage, while the others ask memory for the weights
//! of their next piece.

use super::super::kv::Pages;
use super::super::pool::{Pool, Work as Chunks};
use super::super::simd::{Kernel, Simd, Tier};
use super::super::table::Table;
use super::act::GatedAct;
use super::acts::ActCache;
use super::attend::job::{Room, Span};
use super::attend::{Item, Target};
use super::bank::Bank;
use super::buffer::Buffer;
use super::drive::{Cut, Product, pieces};
use super::lanes::ROWS as STREAMS;
use super::local::Local;
use super::math::AddTo;
use super::rope::{Angles, rotate};
use crate::backend::{PAGE_TOKENS, PageId};
use crate::error::{Error, Result};
use crate::plan::{Attend, Heads, Op, Stage, Step, Turned, Work};
use crate::store::Lease;
use parking_lot::{Mutex, RwLock};
use std::iter::once;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most stages of a job.
pub const STAGES_MAX: usize = 8;
/// Lines of each of a piece's streams that are asked for while it waits: 128 KiB in all, which the
/// second cache holds beside everything else.
const LINES_AHEAD: usize = 128;

/// Some columns of a linear step's output, or (span, kv head) of an attention.
pub struct Piece {
    stage: usize,
    step: usize,
    from: usize,
    to: usize,
}

/// Memory that jobs share.
pub struct Desk {
    /// Quantised inputs.
    pub acts: RwLock<ActCache>,
    /// A norm's weights, a bias: small vectors as f32.
    pub vector: Mutex<Buffer<f32>>,
    /// For what is done by one thread.
    pub solo: Mutex<Pool>,
    /// For attention.
    pub attention: Room,
    /// Rotated queries, one a worker.
    pub turned: Vec<Mutex<Buffer<f32>>>,
    /// Columns that are still missing: of k and v, then of the queries of each kv head; then
    /// whether keys and values are still to be appended.
    pub missing: Vec<AtomicUsize>,
    /// The first error of a job.
    pub failed: Mutex<Option<Error>>,
}

/// What a job reads and writes.
pub struct Job<'a> {
    /// Whose kernels.
    pub tier: Tier,
    /// Kernels by type.
    pub table: &'a Table,
    /// Steps of the group.
    pub steps: &'a [Step],
    /// At most [`STAGES_MAX`], one of them with heads.
    pub stages: &'a [Stage],
    /// The group's weights.
    pub weights: &'a Lease<'a>,
    /// Values.
    pub bank: Bank<'a>,
    /// Working memory.
    pub desk: &'a Desk,
    /// The KV cache.
    pub pages: RwLock<&'a mut Pages>,
    /// Pages of each sequence.
    pub sequences: &'a [Vec<PageId>],
    /// Rows of each sequence, few of each.
    pub spans: &'a [Span],
    /// Batch row of each selected row.
    pub selected: &'a [usize],
    /// Angles of a rotation.
    pub angles: &'a (dyn Fn(&Step) -> Option<&'a Angles> + Sync),
}

/// A job in its pieces.
struct Laid<'a, 'b> {
    job: &'b Job<'a>,
    pieces: &'b [Piece],
}

impl Job<'_> {
    /// Runs it. `room` is memory for its pieces.
    ///
    /// # Errors
    /// `ERR_INTERNAL` for weights that do not fit their shapes.
    pub fn run(&self, pool: &mut Pool, room: &mut Vec<Piece>) -> Result<()> {
        let mut ends = [0; STAGES_MAX];
        room.clear();
        for (index, (stage, end)) in self.stages.iter().zip(&mut ends).enumerate() {
            self.lay(index, stage, pool.active(), room)?;
            *end = room.len();
        }
        if let Some(first) = self.stages.first() {
            self.prepare(first, pool)?;
        }
        let ends = ends.get(..self.stages.len()).unwrap_or(&[]);
        pool.run_stages(ends, &Laid { job: self, pieces: room })?;
        self.desk.failed.lock().take().map_or(Ok(()), Err)
    }

    /// The pieces of a stage.
    fn lay(
        &self,
        index: usize,
        stage: &Stage,
        threads: usize,
        room: &mut Vec<Piece>,
    ) -> Result<()> {
        let mut add = |step: usize, columns: Range<usize>| {
            room.push(Piece { stage: index, step, from: columns.start, to: columns.end });
        };
        match &stage.work {
            Work::None | Work::Alone(_) => {}
            Work::Linears(steps) => {
                if steps.len() == 2 && stage.each.is_some() {
                    // Both at once: columns of one with those of the other.
                    let ((n, a), (_, b)) = (self.size(steps.start)?, self.size(steps.start + 1)?);
                    let size = |index| (index == 0).then_some((n, a + b));
                    let cut = self.cut(steps.start, threads);
                    pieces(size, cut).for_each(|(_, part)| add(steps.start, part));
                } else {
                    self.lay_linears(steps.clone(), threads, &mut add)?;
                }
            }
            Work::Heads(heads) => {
                // Keys and values first: every head wants them.
                let order = [heads.k.linear, heads.v, heads.q.linear];
                self.lay_linears(order.into_iter(), threads, &mut add)?;
                let attend = self.attend_of(heads)?;
                let columns = |step: usize| self.bank.width(self.steps[step].output);
                let missing = &self.desk.missing;
                let group = columns(heads.q.linear) / attend.n_head_kv;
                let all = once(columns(heads.k.linear) + columns(heads.v))
                    .chain(std::iter::repeat_n(group, attend.n_head_kv))
                    .chain(once(1));
                missing.iter().zip(all).for_each(|(left, n)| left.store(n, Ordering::SeqCst));
                let heads_of = |span: usize| (0..attend.n_head_kv).map(move |head| (span, head));
                for (span, head) in (0..self.spans.len()).flat_map(heads_of) {
                    add(heads.attend, span..head);
                }
            }
        }
        Ok(())
    }

    fn lay_linears(
        &self,
        steps: impl Iterator<Item = usize>,
        threads: usize,
        add: &mut dyn FnMut(usize, Range<usize>),
    ) -> Result<()> {
        let (mut list, mut sizes) = ([0; STAGES_MAX], [(0, 0); STAGES_MAX]);
        let mut n = 0;
        for step in steps {
            let places = list.get_mut(n).zip(sizes.get_mut(n));
            let Some((place, size)) = places else {
                return Err(Error::internal("job", "too many linear steps over one input"));
            };
            (*place, *size) = (step, self.size(step)?);
            n += 1;
        }
        let size = |index: usize| sizes[..n].get(index).copied();
        pieces(size, self.cut(list[0], threads)).for_each(|(i, part)| add(list[i], part));
        Ok(())
    }

    fn cut(&self, step: usize, threads: usize) -> Cut {
        let step = &self.steps[step];
        let kernel = self.table.linear(self.bank.plan.weight(step.weights[0]).kind);
        Cut::of(kernel, self.bank.rows(step.output), threads)
    }

    /// Columns of a linear step and bytes of each; nothing if it has no rows.
    fn size(&self, step: usize) -> Result<(usize, usize)> {
        let step = &self.steps[step];
        let n_out = self.bank.width(step.output);
        if self.bank.rows(step.output) == 0 {
            return Ok((0, 0));
        }
        let out = self.bank.matrix(step.output);
        let product = self.product(step, &out);
        product.check()?;
        Ok((n_out, product.weights.len() / n_out))
    }

    fn product<'b>(&'b self, step: &Step, out: &'b super::stripe::Shared<'b>) -> Product<'b> {
        let weight = step.weights[0];
        Product {
            kernel: self.table.linear(self.bank.plan.weight(weight).kind),
            weights: self.weights.bytes(weight),
            n_out: self.bank.width(step.output),
            k: self.bank.width(step.inputs[0]),
            rows: 0..self.bank.rows(step.output),
            out,
        }
    }

    fn attend_of(&self, heads: &Heads) -> Result<&Attend> {
        match &self.steps[heads.attend].op {
            Op::Attend(attend) if attend.n_head_kv + 2 <= self.desk.missing.len() => Ok(attend),
            _ => Err(Error::internal("job", "heads without room")),
        }
    }

    /// Quantises what a stage's linear steps read, as their weights want it.
    fn prepare(&self, stage: &Stage, pool: &mut Pool) -> Result<()> {
        let steps = match &stage.work {
            Work::None | Work::Alone(_) => return Ok(()),
            Work::Linears(steps) => steps.clone(),
            Work::Heads(heads) => stage.together().start..heads.attend,
        };
        let mut acts = self.desk.acts.write();
        for step in self.steps[steps].iter().filter(|step| step.op == Op::Linear) {
            let (input, rows) = (step.inputs[0], self.bank.rows(step.inputs[0]));
            if rows == 0 {
                return Ok(());
            }
            let kernel = self.table.linear(self.bank.plan.weight(step.weights[0]).kind);
            // SAFETY: written by stages before this one, and the next has not begun.
            let x = unsafe { self.bank.all(input) };
            let tools = (self.tier, &mut *pool);
            let k = self.bank.width(input);
            acts.prepare(input.0, kernel, tools, (x, k), &mut once(0..rows))?;
        }
        Ok(())
    }

    /// A step on whole rows, on this thread alone.
    fn local(&self, step: &Step) -> Result<()> {
        let mut vector = self.desk.vector.lock();
        let mut width = 0;
        if let (Op::Norm(_), Some(id)) = (&step.op, step.weights.first()) {
            let weight = self.bank.plan.weight(*id);
            width = weight.shape.iter().product();
            vector.grow(width)?;
            weight.kind.dequantise(self.weights.bytes(*id), &mut vector[..width])?;
        }
        let (bank, tier, selected) = (&self.bank, self.tier, self.selected);
        let angles = (self.angles)(step);
        let local = Local { step, bank, tier, vector: &vector[..width], angles, selected };
        // SAFETY: it runs when a stage is done and before the next begins.
        unsafe { local.run_alone() };
        Ok(())
    }

    /// Some columns of a linear step, bias included.
    fn columns(&self, index: usize, columns: Range<usize>) -> Result<()> {
        let step = &self.steps[index];
        let out = self.bank.matrix(step.output);
        let product = self.product(step, &out);
        // SAFETY: what a stage reads was written before it began.
        let x = unsafe { self.bank.all(step.inputs[0]) };
        // SAFETY: pieces of a stage are of different columns or values.
        unsafe { product.columns(self.tier, &self.desk.acts.read(), x, columns.clone()) };
        let Some(id) = step.weights.get(1) else { return Ok(()) };
        let (kind, bytes) = (self.bank.plan.weight(*id).kind, self.weights.bytes(*id));
        let mut bias = [0.0; 64];
        for part in columns.clone().step_by(bias.len()).map(|at| at..columns.end.min(at + 64)) {
            let size = kind.block_bytes();
            let bytes = bytes.get(part.start * size..part.end * size).unwrap_or(&[]);
            let bias = &mut bias[..part.len()];
            kind.dequantise(bytes, bias)?;
            for row in 0..product.rows.end {
                let at = row * product.n_out + part.start;
                // SAFETY: columns of this piece.
                let out = unsafe { self.bank.write(step.output, at, part.len()) };
                self.tier.call(AddTo(out, bias));
            }
        }
        Ok(())
    }

    /// A step on columns that were just written.
    fn each(&self, index: usize, columns: &Range<usize>) {
        let step = &self.steps[index];
        let width = self.bank.width(step.output);
        for row in 0..self.bank.rows(step.output) {
            let (at, len) = (row * width + columns.start, columns.len());
            // SAFETY: the columns of this piece in the outputs of this stage; the other input of
            // an addition is of a stage before.
            let (out, a, b) = unsafe {
                let input = |i: usize| self.bank.read(step.inputs[i], at, len);
                (self.bank.write(step.output, at, len), input(0), input(1))
            };
            out.copy_from_slice(a);
            match step.op {
                Op::GatedAct(act) => self.tier.call(GatedAct { act, gate: out, up: b }),
                _ => self.tier.call(AddTo(out, b)),
            }
        }
    }

    /// Notes columns of q, k or v. The last of k and v lead to the KV cache.
    fn count(&self, heads: &Heads, piece: &Piece) -> Result<()> {
        let attend = self.attend_of(heads)?;
        let missing = &self.desk.missing;
        if piece.step == heads.q.linear {
            let group = self.bank.width(self.steps[piece.step].output) / attend.n_head_kv;
            for head in piece.from / group..piece.to.div_ceil(group) {
                let here = piece.to.min((head + 1) * group) - piece.from.max(head * group);
                missing[1 + head].fetch_sub(here, Ordering::SeqCst);
            }
            return Ok(());
        }
        let here = piece.to - piece.from;
        if missing[0].fetch_sub(here, Ordering::SeqCst) == here {
            self.append(heads, attend)?;
            missing[1 + attend.n_head_kv].store(0, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Writes keys and values to the pages, rotated.
    fn append(&self, heads: &Heads, attend: &Attend) -> Result<()> {
        if let Some(rope) = heads.k.rope {
            self.local(&self.steps[rope])?;
        }
        let inputs = &self.steps[heads.attend].inputs;
        // SAFETY: all columns of k and v are there, and this thread alone goes on with them.
        let (k, v) = unsafe { (self.bank.all(inputs[1]), self.bank.all(inputs[2])) };
        let mut pages = self.pages.write();
        for span in self.spans {
            let sequence = &self.sequences[span.sequence];
            append(&mut pages, self.tier, attend, (span, sequence), (k, v));
        }
        Ok(())
    }

    /// Rows of a span against a kv head.
    fn attend(&self, heads: &Heads, span: &Span, head: usize, worker: usize) -> Result<()> {
        let attend = self.attend_of(heads)?;
        let width = attend.n_head * attend.head_dim_k;
        let group = attend.n_head / attend.n_head_kv;
        let columns = group * attend.head_dim_k;
        let mut turned = self.desk.turned[worker].lock();
        let q = turned.get_mut(..span.rows.len() * width);
        let q = q.ok_or_else(|| Error::internal("job", "no room for queries"))?;
        let Turned { linear, rope } = heads.q;
        for (row, q) in span.rows.clone().zip(q.chunks_exact_mut(width)) {
            let own = &mut q[head * columns..(head + 1) * columns];
            let at = row * width + head * columns;
            // SAFETY: `is_ready` has seen these columns written.
            own.copy_from_slice(unsafe { self.bank.read(self.steps[linear].output, at, columns) });
            let step = rope.map(|rope| &self.steps[rope]);
            if let Some((Op::Rope(rope), step)) = step.map(|step| (&step.op, step)) {
                rotate(rope, (self.angles)(step).map_or(&[], |angles| angles.row(row)), own);
            }
        }
        let pages = self.pages.read();
        let kv = pages.layer(attend.kv).ok_or_else(|| Error::internal("job", "no kv layer"))?;
        let sequence = &self.sequences[span.sequence];
        let (output, part) = (self.steps[heads.attend].output, attend.head_dim_v * group);
        // SAFETY: a row's heads of one kv head belong to one piece.
        let mut row_of = |row: usize| unsafe {
            let row = span.rows.start + row;
            self.bank.write(output, (row * attend.n_head_kv + head) * part, part)
        };
        self.tier.call(Item {
            attend,
            kv,
            head,
            q,
            position: span.position,
            page: |index: usize| pages.view(attend.kv, sequence[index]),
            scratch: &mut self.desk.attention.worker(worker).lock(),
            target: Target::Rows(&mut row_of),
        });
        Ok(())
    }

    fn note(&self, done: Result<()>) {
        if let Err(error) = done {
            self.desk.failed.lock().get_or_insert(error);
        }
    }
}

impl Chunks for Laid<'_, '_> {
    fn chunk(&self, chunk: usize, worker: usize) {
        let (job, piece) = (self.job, &self.pieces[chunk]);
        let stage = &job.stages[piece.stage];
        let columns = piece.from..piece.to;
        job.note(match &stage.work {
            Work::Heads(heads) if piece.step == heads.attend => {
                job.attend(heads, &job.spans[piece.from], piece.to, worker)
            }
            Work::Heads(heads) => {
                job.columns(piece.step, columns).and_then(|()| job.count(heads, piece))
            }
            Work::Linears(steps) => {
                let pair = stage.each.filter(|_| steps.len() == 2).map(|_| steps.start + 1);
                let mut all = once(piece.step).chain(pair);
                all.try_for_each(|step| job.columns(step, columns.clone()))
            }
            Work::None | Work::Alone(_) => Ok(()),
        });
        if let Some(each) = stage.each {
            job.each(each, &(piece.from..piece.to));
        }
    }

    fn finish(&self, stage: usize, _: usize) {
        let job = self.job;
        let steps = &job.steps[job.stages[stage].then.clone()];
        job.note(steps.iter().try_for_each(|step| job.local(step)));
        if let Some(next) = job.stages.get(stage + 1) {
            job.note(job.prepare(next, &mut job.desk.solo.lock()));
        }
    }

    fn is_ready(&self, chunk: usize) -> bool {
        let piece = &self.pieces[chunk];
        match &self.job.stages[piece.stage].work {
            Work::Heads(heads) if piece.step == heads.attend => {
                let missing = &self.job.desk.missing;
                let n = self.job.attend_of(heads).map_or(0, |attend| attend.n_head_kv);
                let is_there = |i: usize| missing[i].load(Ordering::SeqCst) == 0;
                is_there(1 + n) && is_there(1 + piece.to)
            }
            _ => true,
        }
    }

    fn ahead(&self, chunk: usize, step: usize) -> bool {
        let (job, piece) = (self.job, &self.pieces[chunk]);
        let linear = &job.steps[piece.step];
        if step >= LINES_AHEAD || linear.op != Op::Linear {
            return false;
        }
        let bytes = job.weights.bytes(linear.weights[0]);
        let row = bytes.len() / job.bank.width(linear.output).max(1);
        let part = bytes.get(piece.from * row..piece.to * row).unwrap_or(&[]);
        job.tier.call(Ahead { bytes: part, line: step });
        true
    }
}

/// Writes the keys and values of a span's rows to its pages; `k` and `v` are of all rows.
pub fn append(
    pages: &mut Pages,
    tier: Tier,
    attend: &Attend,
    (span, sequence): (&Span, &[PageId]),
    (k, v): (&[f32], &[f32]),
) {
    let k_width = attend.n_head_kv * attend.head_dim_k;
    let v_width = attend.n_head_kv * attend.head_dim_v;
    let mut row = span.rows.start;
    while row < span.rows.end {
        let position = span.position + row - span.rows.start;
        let slot = position % PAGE_TOKENS;
        let end = span.rows.end.min(row + PAGE_TOKENS - slot);
        let page = sequence[position / PAGE_TOKENS];
        let parts = (&k[row * k_width..end * k_width], &v[row * v_width..end * v_width]);
        pages.append(tier, attend.kv, (page, slot), parts);
        row = end;
    }
}

/// Asks memory for a line of each of the streams that a kernel makes of its weights.
struct Ahead<'a> {
    bytes: &'a [u8],
    line: usize,
}

impl Kernel for Ahead<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let part = self.bytes.len() / STREAMS;
        if 64 * self.line < part {
            for stream in 0..STREAMS {
                let line = self.bytes.as_ptr().wrapping_add(stream * part + 64 * self.line);
                s.prefetch(line);
            }
        }
    }
}
