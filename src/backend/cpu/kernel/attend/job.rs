//! Splits attention over the pool: kv heads and blocks of rows of a sequence, and for single rows
//! far into a context ranges of tiles. Every piece of the output belongs to one chunk; how the work
//! is split changes no bit.

use super::super::super::pool::Pool;
use super::super::super::simd::Tier;
use super::super::buffer::Buffer;
use super::super::stripe::Shared;
use super::{
    Item, KvLayerView, Merge, PageView, Scratch, TILE, TILE_PAGES, Target, line_width, rows_of,
};
use crate::error::{Error, Result};
use crate::plan::Attend;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Tiles of a range: some ten microseconds.
pub const RANGE: usize = 2;
/// Chunks a thread that make cutting needless.
const CHUNKS: usize = 8;

/// Rows of one sequence in the batch.
#[derive(Clone, Debug)]
pub struct Span {
    /// Rows.
    pub rows: Range<usize>,
    /// Position of the first.
    pub position: usize,
    /// Index of the sequence.
    pub sequence: usize,
}

impl Span {
    /// Tiles that the last row sees.
    fn tiles(&self) -> usize {
        (self.position + self.rows.len()).div_ceil(TILE)
    }
}

/// What attention needs beside its inputs.
#[derive(Default)]
pub struct Room {
    workers: Vec<Mutex<Scratch>>,
    /// Lines of tiles that were computed by themselves.
    lines: Buffer<f32>,
    /// Ranges that are left of each cut row and kv head.
    left: Vec<AtomicUsize>,
    /// The chunks of each span.
    pieces: Vec<Piece>,
    /// Bytes of the widest lines that a tile of a cut row takes.
    tile_bytes: usize,
}

impl Room {
    /// Room for so many threads.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        let workers = (0..threads).map(|_| Mutex::default()).collect();
        Room { workers, ..Room::default() }
    }

    /// Room for an attention of any length, but for what cut rows need.
    ///
    /// # Errors
    /// `ERR_INSUFFICIENT_MEMORY`.
    pub fn reserve(&mut self, attend: &Attend) -> Result<()> {
        let lines = attend.n_head * line_width(attend) * size_of::<f32>();
        self.tile_bytes = self.tile_bytes.max(lines);
        self.workers.iter_mut().try_for_each(|worker| worker.get_mut().reserve(attend))
    }

    /// Bytes of lines that a page of a cut row takes.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        self.tile_bytes.div_ceil(TILE_PAGES)
    }

    /// What a worker needs for an item of its own.
    pub fn worker(&self, worker: usize) -> &Mutex<Scratch> {
        &self.workers[worker]
    }

    /// Bytes held in any case.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.workers.iter().map(|worker| worker.lock().bytes()).sum()
    }
}

/// Attention of all rows.
pub struct Attention<'a> {
    /// Shape.
    pub attend: &'a Attend,
    /// Types of the pages.
    pub kv: KvLayerView,
    /// `[n_rows, n_head * head_dim_k]`.
    pub q: &'a [f32],
    /// Rows of each sequence.
    pub spans: &'a [Span],
}

/// Finds a page: (sequence, index of the page in it).
pub type Find<'a, 'p> = &'a (dyn Fn(usize, usize) -> PageView<'p> + Sync);

/// Runs it into `out [n_rows, n_head * head_dim_v]`.
///
/// # Errors
/// `ERR_INTERNAL` for heads that do not divide or too few workers; `ERR_INSUFFICIENT_MEMORY`.
pub fn attend(
    (tier, pool): (Tier, &mut Pool),
    room: &mut Room,
    job: &Attention<'_>,
    page: Find<'_, '_>,
    out: &mut [f32],
) -> Result<()> {
    let (attend, n_kv) = (job.attend, job.attend.n_head_kv);
    if n_kv == 0 || attend.n_head % n_kv != 0 || room.workers.len() < pool.threads() {
        return Err(Error::internal("attend", "heads or scratch"));
    }
    let rows = rows_of(attend);
    let whole: usize = job.spans.iter().map(|span| span.rows.len().div_ceil(rows) * n_kv).sum();
    let may_cut = pool.threads() > 1 && whole < CHUNKS * pool.threads();
    let width = line_width(attend);
    room.pieces.clear();
    let (mut chunks, mut lines) = (0, 0);
    for span in job.spans {
        let is_cut = may_cut && span.rows.len() == 1 && span.tiles() > RANGE;
        let parts =
            if is_cut { span.tiles().div_ceil(RANGE) } else { span.rows.len().div_ceil(rows) };
        chunks += parts * n_kv;
        room.pieces.push(Piece { parts, end: chunks, lines: is_cut.then_some(lines) });
        lines += if is_cut { span.tiles() * attend.n_head } else { 0 };
    }
    room.lines.grow(lines * width)?;
    room.left.resize_with(room.pieces.len() * n_kv, AtomicUsize::default);
    for (left, piece) in room.left.chunks_mut(n_kv).zip(&room.pieces) {
        left.iter_mut().for_each(|left| *left.get_mut() = piece.parts);
    }
    let run = Run {
        job,
        page,
        out: Shared::new(out, attend.n_head * attend.head_dim_v),
        lines: Shared::new(&mut room.lines, width),
        left: &room.left,
    };
    let (workers, pieces) = (&room.workers, &room.pieces);
    pool.run(chunks, &|chunk, worker| {
        let index = pieces.partition_point(|piece| piece.end <= chunk);
        let (piece, span) = (&pieces[index], &job.spans[index]);
        let within = chunk - (piece.end - piece.parts * n_kv);
        let scratch = &mut *workers[worker].lock();
        match piece.lines {
            None => run.rows(tier, span, (within / n_kv * rows, within % n_kv), scratch),
            Some(first) => {
                let (part, head) = (within / n_kv, within % n_kv);
                run.tiles(tier, span, (part, head, first), scratch);
                // Who finishes the last range sees what all others wrote.
                if run.left[index * n_kv + head].fetch_sub(1, Ordering::AcqRel) == 1 {
                    run.merge(tier, span, (head, first), scratch);
                }
            }
        }
    })
}

/// The chunks of one span.
struct Piece {
    /// Blocks of rows, or ranges of tiles.
    parts: usize,
    /// Chunks up to its last.
    end: usize,
    /// Its first line, if it is cut.
    lines: Option<usize>,
}

/// A job that runs.
struct Run<'a, 'p> {
    job: &'a Attention<'a>,
    page: Find<'a, 'p>,
    out: Shared<'a>,
    /// A cut row's lines: `[tile][head]`.
    lines: Shared<'a>,
    left: &'a [AtomicUsize],
}

impl Run<'_, '_> {
    /// A block of rows against all tiles of one kv head.
    fn rows(&self, tier: Tier, span: &Span, (first, head): (usize, usize), scratch: &mut Scratch) {
        let rows = span.rows.start + first;
        let n = rows_of(self.job.attend).min(span.rows.len() - first);
        let mut row_of = |row| self.heads(rows + row, head);
        self.item(tier, span, (rows..rows + n, head), scratch, Target::Rows(&mut row_of));
    }

    /// One row against a range of tiles of one kv head.
    fn tiles(
        &self,
        tier: Tier,
        span: &Span,
        (part, head, first): (usize, usize, usize),
        scratch: &mut Scratch,
    ) {
        let attend = self.job.attend;
        let (group, width) = (attend.n_head / attend.n_head_kv, line_width(attend));
        let tiles = part * RANGE..((part + 1) * RANGE).min(span.tiles());
        let mut lines_of = |tile| {
            let line = first + tile * attend.n_head + head * group;
            // SAFETY: the lines of a tile and kv head belong to one range alone.
            unsafe { self.lines.line(line * width, group * width) }
        };
        let target = Target::Tiles(tiles, &mut lines_of);
        self.item(tier, span, (span.rows.clone(), head), scratch, target);
    }

    fn item(
        &self,
        tier: Tier,
        span: &Span,
        (rows, head): (Range<usize>, usize),
        scratch: &mut Scratch,
        target: Target<'_, '_>,
    ) {
        let attend = self.job.attend;
        let width = attend.n_head * attend.head_dim_k;
        tier.call(Item {
            attend,
            kv: self.job.kv,
            head,
            q: &self.job.q[rows.start * width..rows.end * width],
            position: span.position + rows.start - span.rows.start,
            page: |index| (self.page)(span.sequence, index),
            scratch,
            target,
        });
    }

    /// Folds the tiles of a cut row's heads, all computed.
    fn merge(&self, tier: Tier, span: &Span, (head, first): (usize, usize), scratch: &mut Scratch) {
        let attend = self.job.attend;
        let (group, width) = (attend.n_head / attend.n_head_kv, line_width(attend));
        let outs = self.heads(span.rows.start, head).chunks_exact_mut(attend.head_dim_v);
        for (g, out) in outs.enumerate() {
            let lines = (0..span.tiles()).map(|tile| {
                let line = first + tile * attend.n_head + head * group + g;
                // SAFETY: all who wrote to it are done; nobody else merges this head.
                &*unsafe { self.lines.line(line * width, width) }
            });
            tier.call(Merge { attend, v: self.job.kv.v, lines, scratch, out });
        }
    }

    /// The heads of a row that belong to a kv head.
    #[allow(clippy::mut_from_ref, reason = "each belongs to one chunk")]
    fn heads(&self, row: usize, head: usize) -> &mut [f32] {
        let attend = self.job.attend;
        let part = attend.n_head / attend.n_head_kv * attend.head_dim_v;
        // SAFETY: a row's heads of one kv head belong to one chunk, or to who merges them.
        unsafe { self.out.line(row * attend.n_head * attend.head_dim_v + head * part, part) }
    }
}
