//! Few batch rows (1 to 16) through integer weights: sixteen weight rows are the lanes of a vector.
//!
//! ```text
//! words: dword w of the blocks of 16 rows, one a lane -> codes, scales, f16 factors, lane by lane
//!   acc[n] += codes . four bytes of batch row n, broadcast from where they lie
//!   total[n] += acc[n] * scales, exact; after a block the f32 operations, for 16 outputs at once
//! ```
//! No sum runs across lanes, and a block is taken apart once for all batch rows of a tile. The 16
//! weight rows lie far apart in the chunk, so that memory sees 16 long streams (85-100 % of the
//! read limit; neighbouring rows: 35-60 %). Lines are asked into the second cache, some for each
//! 32 values: in one burst, or into the first cache, costs 5-15 %.
//!
//! Cycles a block and core out of L2 on Zen 4, for 1, 2, 4, 8 rows: Q4_K 15, 18, 30, 52; Q6_K 25,
//! 31, 47, 75; Q2_K 15, 22, 39, 66; Q8_0 3.2, 3.8, 5.0, 8.1; Q4_0 2.7, 3.1, 4.3, 7.6. Multipliers
//! alone need 4.75 a row of Q4_K; 62 GB/s on two cores allow 17. Tried with Q4_K: four rows of 64
//! codes, scales by `vpdpwssd`, sums across lanes: 30 for one row; eight weight rows in 256 bits:
//! 14.8, 20, 38, 62.

use super::super::simd::wide::{Wide, WideKernel};
use super::lane_types::{Head, Lanes32, Lanes256, Words};
use super::quantise::Bytes;
use super::stripe::Stripe;
use std::marker::PhantomData;
use std::ops::Range;

/// Weight rows of a vector.
pub const ROWS: usize = 16;
/// Most batch rows of a tile.
pub const ROWS_MAX: usize = 8;
/// Bytes ahead of a stream that are asked for (512 to 1536 are alike).
const AHEAD: usize = 768;

/// Blocks of the same index of sixteen rows.
#[derive(Clone, Copy)]
pub struct Blocks {
    /// Where the rows begin.
    pub rows: [*const u8; ROWS],
    /// Bytes before the blocks.
    pub at: usize,
}

impl Blocks {
    /// The bytes at `at` of each block, as [`Wide::words`] gives them.
    ///
    /// # Safety
    /// 16 bytes are readable there.
    #[inline(always)]
    pub unsafe fn words<S: Wide>(&self, s: S, at: usize) -> [S::B; 4] {
        // SAFETY: the caller's promise.
        unsafe { s.words(&self.rows, self.at + at) }
    }

    /// Asks for the first [`AHEAD`] bytes of all rows.
    #[inline(always)]
    fn begin<S: Wide>(&self, s: S) {
        for line in 0..AHEAD / 64 {
            for row in &self.rows {
                s.prefetch_second(row.wrapping_add(64 * line));
            }
        }
    }

    /// Asks for what lies [`AHEAD`] of `bytes` bytes of rows 2 `pair` and 2 `pair` + 1.
    #[inline(always)]
    fn prefetch<S: Wide>(&self, s: S, pair: usize, bytes: usize) {
        for row in &self.rows[2 * pair..2 * pair + 2] {
            for line in 0..bytes.div_ceil(64) {
                s.prefetch_second(row.wrapping_add(self.at + AHEAD + 64 * line));
            }
        }
    }
}

/// Weight rows `[width of out, k]` times up to N batch rows.
pub struct Few<'a, 'b, T, const N: usize> {
    /// Weight rows.
    pub weights: &'a [u8],
    /// Values in a row.
    pub k: usize,
    /// All batch rows.
    pub x: Bytes<'a>,
    /// The first batch row, and how many there are.
    pub rows: (usize, usize),
    /// Which tiles of weight rows: of w, tile i are the rows i, i + w, ... i + 15 w.
    pub tiles: Range<usize>,
    /// Where to: `[batch rows, weight rows]`.
    pub out: &'a mut Stripe<'b>,
    /// The type.
    pub life: PhantomData<T>,
}

/// How a tile of sixteen weight rows runs over K.
pub trait Tile: 'static {
    /// Bytes of a weight block.
    const BYTES: usize;
    /// Its values.
    const BLOCK: usize;

    /// Products of `n_blocks` blocks of sixteen rows with N batch rows, their first blocks `at`.
    ///
    /// # Safety
    /// `n_blocks` blocks of `BYTES` bytes are readable from where each row begins.
    unsafe fn run<S: Wide, const N: usize>(
        s: S,
        blocks: Blocks,
        n_blocks: usize,
        x: (Bytes<'_>, [usize; N]),
    ) -> [S::F; N];
}

impl<T: Tile, const N: usize> WideKernel for Few<'_, '_, T, N> {
    type Out = ();

    #[inline(always)]
    fn run<S: Wide>(mut self, s: S) {
        // Eight rows in sixteen registers would live in memory.
        if S::REGISTERS >= 32 || N <= 4 {
            return self.tile::<S, N>(s, self.rows.0, self.rows.1);
        }
        self.tile::<S, 4>(s, self.rows.0, self.rows.1.min(4));
        self.tile::<S, 4>(s, self.rows.0 + 4, self.rows.1.saturating_sub(4));
    }
}

impl<T: Tile, const N: usize> Few<'_, '_, T, N> {
    /// `count` of M batch rows from `first` on; those beyond repeat the last.
    #[inline(always)]
    fn tile<S: Wide, const M: usize>(&mut self, s: S, first: usize, count: usize) {
        let (width, n_blocks) = (self.out.width(), self.k / T::BLOCK);
        let row_bytes = n_blocks * T::BYTES;
        if count == 0 || self.weights.len() < width * row_bytes {
            return;
        }
        let at = std::array::from_fn(|n| (first + n.min(count - 1)) * n_blocks);
        let streams = width.div_ceil(ROWS);
        for i in self.tiles.start..self.tiles.end.min(streams) {
            let rows = std::array::from_fn(|lane| {
                let row = (i + lane * streams).min(width - 1);
                self.weights[row * row_bytes..].as_ptr()
            });
            let blocks = Blocks { rows, at: 0 };
            if i == 0 {
                blocks.begin(s);
            }
            // SAFETY: each row has `n_blocks` blocks behind it, as `weights` holds `width` rows.
            let y = unsafe { T::run::<S, M>(s, blocks, n_blocks, (self.x, at)) };
            for (n, y) in y.into_iter().enumerate().take(count) {
                let mut lanes = [0.0; ROWS];
                s.store(y, &mut lanes);
                let out = &mut self.out.row(first + n)[i..];
                for (out, y) in out.iter_mut().step_by(streams).zip(lanes) {
                    *out = y;
                }
            }
        }
    }
}

/// Tiles of a type with 256-value blocks.
pub struct By256<T>(PhantomData<T>);

impl<T: Lanes256> Tile for By256<T> {
    const BYTES: usize = T::BYTES;
    const BLOCK: usize = 256;

    #[inline(always)]
    unsafe fn run<S: Wide, const N: usize>(
        s: S,
        mut blocks: Blocks,
        n_blocks: usize,
        (x, at): (Bytes<'_>, [usize; N]),
    ) -> [S::F; N] {
        let mut acc = [s.splat(0.0); N];
        let (all, sums) = (x.qs.as_chunks::<256>().0, x.sums.as_chunks::<16>().0);
        for b in 0..n_blocks {
            let mut qs = [&[0; 256]; N];
            for n in 0..N {
                qs[n] = &all[at[n] + b];
            }
            let mut total = [s.zero_i(); N];
            // SAFETY: block b of each row is readable, by the caller's promise. Steps are written
            // out, so that what they share lies in registers and not in arrays.
            let head = unsafe {
                let mut head = T::head(s, &blocks);
                step::<S, T, N, 0>(s, &blocks, &mut head, qs, &mut total);
                step::<S, T, N, 1>(s, &blocks, &mut head, qs, &mut total);
                if T::PLANES == 2 {
                    step::<S, T, N, 2>(s, &blocks, &mut head, qs, &mut total);
                    step::<S, T, N, 3>(s, &blocks, &mut head, qs, &mut total);
                }
                head
            };
            for n in 0..N {
                let value = value::<S, T>(s, &head, total[n], &sums[at[n] + b]);
                acc[n] = s.fma(value, s.splat(x.ds[at[n] + b]), acc[n]);
            }
            blocks.at += T::BYTES;
        }
        acc
    }
}

/// The planes of a step.
///
/// # Safety
/// The blocks are readable.
#[inline(always)]
unsafe fn step<S: Wide, T: Lanes256, const N: usize, const STEP: usize>(
    s: S,
    blocks: &Blocks,
    head: &mut Head<S>,
    qs: [&[i8; 256]; N],
    total: &mut [S::I; N],
) {
    // SAFETY: the caller's promise.
    let words = unsafe { T::words(s, blocks, STEP, &mut head.high) };
    let at = STEP * T::PLANES;
    plane::<S, T, N, 0>(s, &words, (head, at), qs, total);
    plane::<S, T, N, 1>(s, &words, (head, at + 1), qs, total);
    if T::PLANES == 4 {
        plane::<S, T, N, 2>(s, &words, (head, at + 2), qs, total);
        plane::<S, T, N, 3>(s, &words, (head, at + 3), qs, total);
    }
    for pair in at..at + T::PLANES {
        blocks.prefetch(s, pair, T::BYTES);
    }
}

/// 32 values of each row, `index` among the eight of a block, which are plane P of a step.
#[inline(always)]
fn plane<S: Wide, T: Lanes256, const N: usize, const P: usize>(
    s: S,
    words: &Words<S>,
    (head, index): (&Head<S>, usize),
    qs: [&[i8; 256]; N],
    total: &mut [S::I; N],
) {
    let per = 32 / T::SUB;
    for part in 0..per {
        // A single row would wait for its one sum.
        let mut acc = [[s.zero_i(); N]; 2];
        for quad in 0..8 / per {
            let quad = part * 4 + quad;
            let codes = T::quad::<S, P>(s, words, quad);
            let acc = &mut acc[if N == 1 { quad % 2 } else { 0 }];
            for n in 0..N {
                acc[n] = s.dot_x::<0>(acc[n], codes, &qs[n].as_chunks().0[8 * index + quad]);
            }
        }
        let scale = head.scales[per * index + part];
        for n in 0..N {
            let sum = if N == 1 { s.add_i(acc[0][n], acc[1][n]) } else { acc[0][n] };
            total[n] = s.mul_add_i(total[n], sum, scale);
        }
    }
}

/// A block's exact sums with its factors, in the fixed order.
#[inline(always)]
fn value<S: Wide, T: Lanes256>(s: S, head: &Head<S>, total: S::I, sums: &[i16; 16]) -> S::F {
    let mut total = total;
    let mut dots = s.zero_i();
    if T::SUB == 16 {
        for pair in 0..8 {
            dots = s.dot_words(dots, head.pairs[pair], s.splat_words(sums, pair));
        }
    } else {
        let mut twos = [0; 16];
        for (i, [a, b]) in sums.as_chunks().0.iter().enumerate() {
            twos[i] = a + b;
        }
        for pair in 0..4 {
            dots = s.dot_words(dots, head.pairs[pair], s.splat_words(&twos, pair));
        }
    }
    if !T::MINS {
        total = match T::OFFSET {
            4 => s.sub_shl::<2>(total, dots),
            _ => s.sub_shl::<5>(total, dots),
        };
    }
    let v = s.mul(s.to_f(total), head.d);
    if T::MINS { s.fnma(s.to_f(dots), head.dmin, v) } else { v }
}

/// Tiles of a type with 32-value blocks.
pub struct By32<T>(PhantomData<T>);

/// Blocks after which all rows have been asked for what lies ahead.
const ROUND: usize = ROWS / 2;

impl<T: Lanes32> Tile for By32<T> {
    const BYTES: usize = T::BYTES;
    const BLOCK: usize = 32;

    #[inline(always)]
    unsafe fn run<S: Wide, const N: usize>(
        s: S,
        mut blocks: Blocks,
        n_blocks: usize,
        (x, mut at): (Bytes<'_>, [usize; N]),
    ) -> [S::F; N] {
        let mut acc = [s.splat(0.0); N];
        for b in 0..n_blocks {
            // SAFETY: block b of each row is readable, by the caller's promise.
            let (codes, [d, m]) = unsafe { (T::quads(s, &blocks), T::factors(s, &blocks)) };
            let sums = sums32::<S, T, N>(s, codes, (x, at));
            for n in 0..N {
                let dx = s.splat(x.ds[at[n]]);
                acc[n] = s.fma(s.to_f(sums[n]), s.mul(d, dx), acc[n]);
                if T::MIN {
                    let sum = s.splat(f32::from(x.sums[at[n]]));
                    acc[n] = s.fma(sum, s.mul(m, dx), acc[n]);
                }
            }
            blocks.prefetch(s, b % ROUND, ROUND * T::BYTES);
            blocks.at += T::BYTES;
            for at in &mut at {
                *at += 1;
            }
        }
        acc
    }
}

/// Exact sums of a block.
#[inline(always)]
fn sums32<S: Wide, T: Lanes32, const N: usize>(
    s: S,
    codes: [S::B; 8],
    (x, at): (Bytes<'_>, [usize; N]),
) -> [S::I; N] {
    let all = x.qs.as_chunks::<32>().0;
    let exact = T::OFFSET == 0 || (T::OFFSET == 128 && S::SIGNED_QUADS);
    let mut acc = [[s.zero_i(); N]; 2];
    for n in 0..N {
        if !exact {
            acc[0][n] = s.splat_i(i32::from(x.sums[at[n]]) * -i32::from(T::OFFSET));
        }
    }
    for (quad, codes) in codes.into_iter().enumerate() {
        let acc = &mut acc[if N == 1 { quad % 2 } else { 0 }];
        for n in 0..N {
            let x = &all[at[n]].as_chunks().0[quad];
            acc[n] = if T::OFFSET == 128 {
                s.dot_x::<128>(acc[n], codes, x)
            } else {
                s.dot_x::<0>(acc[n], codes, x)
            };
        }
    }
    if N == 1 {
        acc[0][0] = s.add_i(acc[0][0], acc[1][0]);
    }
    acc[0]
}
