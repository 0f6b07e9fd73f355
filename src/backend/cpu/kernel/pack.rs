//! Quantised rows as the matrix kernels read them: sixteen rows are the lanes of a vector, and the
//! bytes of a vector for 256 values of K (a chunk) lie together.
//!
//! ```text
//! qs:   [k / 256][vectors][64][16 rows][4 bytes]
//! sums: [k / 256][vectors][8 or 12][16 rows] pairs of i16: eight of sums of 16; for 256-value
//!       blocks four of sums of 32 behind them
//! ds:   [k / 256][vectors][256 / block][16 rows]
//! ```
//! The last chunk is shorter if k is no multiple of 256.
//! A range of rows (all of them, or those of one expert) is padded with zeros to whole vectors.

use super::super::pool::Pool;
use super::buffer::Buffer;
use super::drive::for_rows;
use super::quantise::{ActKind, Bytes};
use super::stripe::Shared;
use crate::error::Result;
use std::ops::Range;

/// Rows of a vector.
pub const LANE_ROWS: usize = 16;

/// Packed ranges of rows.
#[derive(Default)]
pub struct PackBuffer {
    qs: Buffer<i8>,
    sums: Buffer<i32>,
    ds: Buffer<f32>,
    /// Rows, and the first vector of the range.
    ranges: Vec<(Range<usize>, usize)>,
}

/// One packed range.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    /// `[k / 256][vectors][64][64]`.
    pub qs: &'a [i8],
    /// `[k / 256][vectors][8 or 12][16]`.
    pub sums: &'a [i32],
    /// `[k / 256][vectors][256 / block][16]`.
    pub ds: &'a [f32],
    /// Vectors of 16 rows.
    pub vectors: usize,
}

/// Lines of sums of a 256-value block.
pub const SUM_LINES: usize = 12;

impl PackBuffer {
    /// Packs ranges of quantised rows `[n, k]`, those of fewer than `least` rows left out.
    ///
    /// # Errors
    /// `ERR_INSUFFICIENT_MEMORY`.
    pub fn fill(
        &mut self,
        pool: &mut Pool,
        kind: ActKind,
        (x, k): (Bytes<'_>, usize),
        ranges: impl Iterator<Item = Range<usize>>,
        least: usize,
    ) -> Result<()> {
        let mut vectors = 0;
        self.ranges.clear();
        for rows in ranges.filter(|rows| rows.len() >= least) {
            let count = rows.len().div_ceil(LANE_ROWS);
            self.ranges.push((rows, vectors));
            vectors += count;
        }
        self.reserve(vectors * LANE_ROWS, k)?;
        // One job row for each vector and each 32 values of k.
        let width = 32 * LANE_ROWS;
        let qs = Shared::new(&mut self.qs[..vectors * LANE_ROWS * k], width);
        let sums = Shared::new(&mut self.sums, LANE_ROWS);
        let per = kind.block() / 32;
        let ds = Shared::new(&mut self.ds[..vectors * LANE_ROWS * k / kind.block()], LANE_ROWS);
        let n_blocks = k / 32;
        let list = &self.ranges;
        for_rows(pool, vectors * n_blocks, width, &|job| {
            let (vector, block) = (job / n_blocks, job % n_blocks);
            let Some((rows, base)) = list.iter().rev().find(|(_, base)| *base <= vector) else {
                return;
            };
            let count = rows.len().div_ceil(LANE_ROWS);
            let v = vector - base;
            let (chunk, sub) = (block / 8, block % 8);
            // Lines of 32 values of K, of the chunks and vectors before this one.
            let before = base * n_blocks + chunk * 8 * count + v * 8.min(n_blocks - 8 * chunk);
            let first = rows.start + v * LANE_ROWS;
            let live = first..rows.end.min(first + LANE_ROWS);
            // SAFETY: each (vector, block) is one job; its eight lines of `qs`, its lines of `sums`
            // and, at the first 32 of a block, its line of `ds` are its alone.
            unsafe {
                let lines = qs.line((before + sub) * width, width);
                for (k4, line) in lines.chunks_exact_mut(4 * LANE_ROWS).enumerate() {
                    quads(line, &x, live.clone(), k, 32 * block + 4 * k4);
                }
                let whole = kind == ActKind::Block256;
                let first = if whole { before / 8 * SUM_LINES } else { before };
                let line = sums.line((first + sub) * LANE_ROWS, LANE_ROWS);
                pairs(line, &x, live.clone(), k, (1, 2 * block));
                if whole && sub % 2 == 0 {
                    let line = sums.line((first + 8 + sub / 2) * LANE_ROWS, LANE_ROWS);
                    pairs(line, &x, live.clone(), k, (2, 2 * block));
                }
                if block % per == 0 {
                    let line = ds.line((before + sub) / per * LANE_ROWS, LANE_ROWS);
                    line.fill(0.0);
                    for (d, row) in line.iter_mut().zip(live) {
                        *d = x.ds[row * (n_blocks / per) + block / per];
                    }
                }
            }
        })
    }

    /// Makes room for `rows` (whole vectors) of `k` values.
    ///
    /// # Errors
    /// `ERR_INSUFFICIENT_MEMORY`.
    pub fn reserve(&mut self, rows: usize, k: usize) -> Result<()> {
        self.qs.grow(rows * k)?;
        self.sums.grow(rows * k.div_ceil(256) * SUM_LINES)?;
        self.ds.grow(rows * k.div_ceil(32))
    }

    /// The packed form of a range.
    #[must_use]
    pub fn view(&self, kind: ActKind, rows: &Range<usize>, k: usize) -> Option<Packed<'_>> {
        let (_, base) = self.ranges.iter().find(|(range, _)| range == rows)?;
        let vectors = rows.len().div_ceil(LANE_ROWS);
        let size = k * LANE_ROWS;
        let part = |times: usize, per: usize| {
            base * size / per * times..(base + vectors) * size / per * times
        };
        let sums = match kind {
            ActKind::Block256 => part(SUM_LINES, 256),
            _ => part(1, 32),
        };
        Some(Packed {
            qs: self.qs.get(part(1, 1))?,
            sums: self.sums.get(sums)?,
            ds: self.ds.get(part(1, kind.block()))?,
            vectors,
        })
    }

    /// Forgets the ranges.
    pub fn clear(&mut self) {
        self.ranges.clear();
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.qs.bytes() + self.sums.bytes() + self.ds.bytes()
    }
}

/// Four values of each row.
fn quads(line: &mut [i8], x: &Bytes<'_>, rows: Range<usize>, k: usize, at: usize) {
    let (lanes, _) = line.as_chunks_mut::<4>();
    let live = rows.len();
    for (lane, row) in lanes.iter_mut().zip(rows) {
        if let Some(four) = x.qs[row * k + at..].first_chunk() {
            *lane = *four;
        }
    }
    lanes[live..].fill([0; 4]);
}

/// Two sums of each row, each of `count` sums of 16 from `at` on.
fn pairs(
    line: &mut [i32],
    x: &Bytes<'_>,
    rows: Range<usize>,
    k: usize,
    (count, at): (usize, usize),
) {
    line.fill(0);
    for (lane, row) in line.iter_mut().zip(rows) {
        let from = row * (k / 16) + at;
        let sum = |from: usize| x.sums[from..from + count].iter().sum::<i16>();
        *lane = i32::from(sum(from + count)) << 16 | i32::from(sum(from).cast_unsigned());
    }
}
