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
//! Cycles a block and core out of L2 on Zen 4, for 1, 2, 4, 8 rows: Q4_K 13, 17, 26, 45; Q5_K 20,
//! 24, 31, 49; Q6_K 25, 31, 40, 64; Q2_K 15, 20, 29, 53; Q8_0 3.2, 3.7, 5.0, 7.4; Q4_0 2.6, 3.1,
//! 4.2, 6.3. The ports of the multipliers alone need 40 for 8 rows of Q4_K (32 for products of
//! bytes, 4 for scales, 4 for mins and floats), 5 for Q4_0; every other instruction now and then
//! takes one of them. 62 GB/s on two cores allow 17 and 2.1. What is broadcast comes from memory
//! by the multiplying instruction itself: from general registers it takes 5 cycles a block of 8
//! rows. Tried with Q4_K: four rows of 64 codes, scales by `vpdpwssd`, sums across lanes: 30 for
//! one row; eight weight rows in 256 bits: 14.8, 20, 38, 62; scales by f32 `fma`, exact for four
//! sub-blocks: as now, for it takes the same port; neighbouring rows, asked for in order a tile
//! ahead: 79 % of 54 GB/s for one row where rows far apart read 91 %, and alike for 8. With Q6_K:
//! sums that begin at -32 times those of x, without products of words: 67 instead of 64.

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
/// Bytes ahead of a stream that are asked for (384 and 768 cost up to 3 % of 1 row, 10 % of 8).
const AHEAD: usize = 512;

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
    pub(super) fn prefetch<S: Wide>(&self, s: S, pair: usize, bytes: usize) {
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
            let mut rows = [self.weights.as_ptr(); ROWS];
            for (lane, row) in rows.iter_mut().enumerate() {
                // Within `weights`, as they hold `width` rows.
                *row = row.wrapping_add((i + lane * streams).min(width - 1) * row_bytes);
            }
            let blocks = Blocks { rows, at: 0 };
            if i == 0 {
                blocks.begin(s);
            }
            // SAFETY: each row has `n_blocks` blocks behind it, as `weights` holds `width` rows.
            let y = unsafe { T::run::<S, M>(s, blocks, n_blocks, (self.x, at)) };
            for n in 0..M {
                if n < count {
                    let mut lanes = [0.0; ROWS];
                    s.store(y[n], &mut lanes);
                    put(&mut self.out.row(first + n)[i..], streams, &lanes);
                }
            }
        }
    }
}

/// Writes lanes `apart` from each other, as far as there is room.
#[inline(always)]
fn put(out: &mut [f32], apart: usize, lanes: &[f32; ROWS]) {
    if out.len() > (ROWS - 1) * apart {
        for (lane, y) in lanes.iter().enumerate() {
            // SAFETY: within the length, by the condition.
            unsafe { *out.get_unchecked_mut(lane * apart) = *y };
        }
    } else {
        for (out, y) in out.iter_mut().step_by(apart).zip(lanes) {
            *out = *y;
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
        let all = x.qs.as_chunks::<256>().0;
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
                let sums = if T::SUB == 16 {
                    &x.sums.as_chunks::<8>().0[2 * (at[n] + b)..]
                } else {
                    &x.sums32.as_chunks::<8>().0[at[n] + b..]
                };
                let value = value::<S, T>(s, &head, total[n], sums);
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
    let mut xs = [&[0; 32]; N];
    for n in 0..N {
        xs[n] = &qs[n].as_chunks().0[index];
    }
    // A single row would wait for its one sum.
    let mut acc = [[s.zero_i(); N]; 2];
    quads::<S, T, N, P, 0, 1>(s, words, xs, &mut acc);
    quads::<S, T, N, P, 2, 3>(s, words, xs, &mut acc);
    if T::SUB == 16 {
        scale(s, acc, head.scales[2 * index], total);
        acc = [[s.zero_i(); N]; 2];
    }
    quads::<S, T, N, P, 4, 5>(s, words, xs, &mut acc);
    quads::<S, T, N, P, 6, 7>(s, words, xs, &mut acc);
    scale(s, acc, head.scales[(32 / T::SUB) * (index + 1) - 1], total);
}

/// Quads A and B of a plane.
#[inline(always)]
fn quads<S: Wide, T: Lanes256, const N: usize, const P: usize, const A: usize, const B: usize>(
    s: S,
    words: &Words<S>,
    xs: [&[i8; 32]; N],
    acc: &mut [[S::I; N]; 2],
) {
    let (a, b) = (T::quad::<S, P>(s, words, A), T::quad::<S, P>(s, words, B));
    let other = usize::from(N == 1);
    for n in 0..N {
        acc[0][n] = any::<S, A>(s, acc[0][n], a, xs[n]);
    }
    for n in 0..N {
        acc[other][n] = any::<S, B>(s, acc[other][n], b, xs[n]);
    }
}

/// [`Wide::dot_x`] with codes as they are, whatever bytes the tier takes.
#[inline(always)]
fn any<S: Wide, const QUAD: usize>(s: S, acc: S::I, codes: S::B, x: &[i8; 32]) -> S::I {
    if S::SIGNED_QUADS {
        s.dot_x::<0, QUAD>(acc, codes, x)
    } else {
        s.dot_x::<128, QUAD>(acc, codes, x)
    }
}

/// Adds the sums of a sub-block to its block's.
#[inline(always)]
fn scale<S: Wide, const N: usize>(
    s: S,
    [a, b]: [[S::I; N]; 2],
    scale: S::I,
    total: &mut [S::I; N],
) {
    for n in 0..N {
        let sum = if N == 1 { s.add_i(a[n], b[n]) } else { a[n] };
        total[n] = s.mul_add_i(total[n], sum, scale);
    }
}

/// A block's exact sums with its factors, in the fixed order. `sums` of x begin at the block's.
#[inline(always)]
fn value<S: Wide, T: Lanes256>(s: S, head: &Head<S>, total: S::I, sums: &[[i16; 8]]) -> S::F {
    let mut total = total;
    let mut dots = s.zero_i();
    dots = s.dot_pair::<0>(dots, head.pairs[0], &sums[0]);
    dots = s.dot_pair::<1>(dots, head.pairs[1], &sums[0]);
    dots = s.dot_pair::<2>(dots, head.pairs[2], &sums[0]);
    dots = s.dot_pair::<3>(dots, head.pairs[3], &sums[0]);
    if T::SUB == 16 {
        dots = s.dot_pair::<0>(dots, head.pairs[4], &sums[1]);
        dots = s.dot_pair::<1>(dots, head.pairs[5], &sums[1]);
        dots = s.dot_pair::<2>(dots, head.pairs[6], &sums[1]);
        dots = s.dot_pair::<3>(dots, head.pairs[7], &sums[1]);
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
pub(super) const ROUND: usize = ROWS / 2;

impl<T: Lanes32> Tile for By32<T> {
    const BYTES: usize = T::BYTES;
    const BLOCK: usize = 32;

    #[inline(always)]
    unsafe fn run<S: Wide, const N: usize>(
        s: S,
        mut blocks: Blocks,
        n_blocks: usize,
        (x, at): (Bytes<'_>, [usize; N]),
    ) -> [S::F; N] {
        let mut acc = [s.splat(0.0); N];
        let mut rows = [Row32::EMPTY; N];
        for n in 0..N {
            rows[n] = Row32::of(x, at[n]..at[n] + n_blocks);
        }
        for b in 0..n_blocks {
            // SAFETY: block b of each row is readable, by the caller's promise.
            let (codes, [d, m]) = unsafe { (T::quads(s, &blocks), T::factors(s, &blocks)) };
            let sums = sums32::<S, T, N>(s, codes, &rows, b);
            for n in 0..N {
                let dx = s.splat(rows[n].ds[b]);
                acc[n] = s.fma(s.to_f(sums[n]), s.mul(d, dx), acc[n]);
                if T::MIN {
                    let sum = s.splat(f32::from(rows[n].sums32[b]));
                    acc[n] = s.fma(sum, s.mul(m, dx), acc[n]);
                }
            }
            blocks.prefetch(s, b % ROUND, ROUND * T::BYTES);
            blocks.at += T::BYTES;
        }
        acc
    }
}

/// Blocks of one batch row.
#[derive(Clone, Copy)]
struct Row32<'a> {
    qs: &'a [[i8; 32]],
    ds: &'a [f32],
    sums32: &'a [i16],
    starts: &'a [i32],
}

impl<'a> Row32<'a> {
    const EMPTY: Self = Row32 { qs: &[], ds: &[], sums32: &[], starts: &[] };

    #[inline(always)]
    fn of(x: Bytes<'a>, part: Range<usize>) -> Self {
        let qs = &x.qs.as_chunks().0[part.clone()];
        let sums32 = &x.sums32[part.clone()];
        Row32 { qs, ds: &x.ds[part.clone()], sums32, starts: &x.starts[part] }
    }
}

/// Exact sums of a block.
#[inline(always)]
fn sums32<S: Wide, T: Lanes32, const N: usize>(
    s: S,
    codes: [S::B; 8],
    rows: &[Row32<'_>; N],
    b: usize,
) -> [S::I; N] {
    let exact = T::OFFSET == 0 || (T::OFFSET == 128 && S::SIGNED_QUADS);
    let mut acc = [[s.zero_i(); N]; 2];
    let mut xs = [&[0; 32]; N];
    for n in 0..N {
        xs[n] = &rows[n].qs[b];
        if !exact {
            let start = s.splat_i(rows[n].starts[b]);
            acc[0][n] = match T::OFFSET {
                8 => start,
                16 => s.shl_i::<1>(start),
                _ => s.shl_i::<4>(start),
            };
        }
    }
    quads32::<S, T, N, 0, 1>(s, &codes, xs, &mut acc);
    quads32::<S, T, N, 2, 3>(s, &codes, xs, &mut acc);
    quads32::<S, T, N, 4, 5>(s, &codes, xs, &mut acc);
    quads32::<S, T, N, 6, 7>(s, &codes, xs, &mut acc);
    if N == 1 {
        acc[0][0] = s.add_i(acc[0][0], acc[1][0]);
    }
    acc[0]
}

/// Quads A and B of a block.
#[inline(always)]
fn quads32<S: Wide, T: Lanes32, const N: usize, const A: usize, const B: usize>(
    s: S,
    codes: &[S::B; 8],
    xs: [&[i8; 32]; N],
    acc: &mut [[S::I; N]; 2],
) {
    let other = usize::from(N == 1);
    for n in 0..N {
        acc[0][n] = dot::<S, T, A>(s, acc[0][n], codes[A], xs[n]);
    }
    for n in 0..N {
        acc[other][n] = dot::<S, T, B>(s, acc[other][n], codes[B], xs[n]);
    }
}

/// [`Wide::dot_x`] with the type's offset.
#[inline(always)]
fn dot<S: Wide, T: Lanes32, const QUAD: usize>(s: S, acc: S::I, codes: S::B, x: &[i8; 32]) -> S::I {
    if T::OFFSET == 128 {
        s.dot_x::<128, QUAD>(acc, codes, x)
    } else {
        s.dot_x::<0, QUAD>(acc, codes, x)
    }
}
