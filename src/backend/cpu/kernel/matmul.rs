//! Many batch rows through integer weights. Weight rows are unpacked to bytes for 256 values of K
//! at a time, a panel that stays in the nearest cache, and meet all batch rows before the next.
//!
//! ```text
//! tile: R weight rows x C vectors of 16 batch rows (6 x 2 if registers hold 32 vectors, or 2 x 1)
//!   acc[r][c] += four bytes of weight row r (broadcast) . four bytes of 16 batch rows
//!   after a sub-block: total += acc * its scale, exact; after a block: the three f32 operations
//! ```
//! The f32 sums of a panel stay in `sums` (second cache) from block to block.
//!
//! A tile of Q4_K, 6 x 2 vectors and a block, takes 1,035 cycles on Zen 4: 768 for products of
//! bytes, 120 for scales, 105 for mins, 30 to write the output, the rest loads and floats.
//! Unpacking does not show from 128 batch rows on. Mins by `vpmaddwd` and an addition take as long.

use super::super::simd::wide::{Wide, WideKernel};
use super::pack::{LANE_ROWS, Packed, SUM_LINES};
use super::registers::Dot256;
use super::stripe::Stripe;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Weight rows of a panel; a multiple of the tile's.
pub const PANEL: usize = 48;
/// Vectors of batch rows whose sums stay on the stack.
pub(super) const VECTORS: usize = 32;

/// Weight rows `[width of out, k]` times packed rows.
pub struct Matmul<'a, 'b, T> {
    /// Weight rows.
    pub weights: &'a [u8],
    /// Values in a row.
    pub k: usize,
    /// The batch rows.
    pub x: Packed<'a>,
    /// Where to: `[batch rows, weight rows]`.
    pub out: &'a mut Stripe<'b>,
    /// The type.
    pub life: PhantomData<T>,
}

/// f32 sums of a panel: `[vectors][weight rows][16]`.
pub(super) type Sums = [[[f32; LANE_ROWS]; PANEL]];

/// Room for them, of which a call writes what it needs.
pub(super) struct Room([MaybeUninit<[[f32; LANE_ROWS]; PANEL]>; VECTORS]);

impl Room {
    pub(super) const EMPTY: Self = Room([MaybeUninit::uninit(); VECTORS]);

    /// Zeros for some vectors.
    #[inline(always)]
    pub(super) fn zeros(&mut self, vectors: usize) -> &mut Sums {
        let some = &mut self.0[..vectors];
        for sums in &mut *some {
            sums.write([[0.0; LANE_ROWS]; PANEL]);
        }
        // SAFETY: all of them were just written.
        unsafe { &mut *(std::ptr::from_mut(some) as *mut Sums) }
    }
}

/// 256 values of a panel's rows.
#[repr(C, align(64))]
pub(super) struct Panel {
    /// `[row][256]`.
    pub(super) codes: [[u8; 256]; PANEL],
    /// Of every 16.
    scales: [[i32; 16]; PANEL],
    /// i16 pairs of factors on the sums of 16, added to T.
    offsets: [[i16; 16]; PANEL],
    /// i16 pairs of mins.
    mins: [[i16; 16]; PANEL],
    /// Factors on T, or of each 32.
    pub(super) d: [[f32; 8]; PANEL],
    /// Factors on M, or added of each 32.
    pub(super) m: [[f32; 8]; PANEL],
}

impl Panel {
    pub(super) const ZERO: Panel = Panel {
        codes: [[0; 256]; PANEL],
        scales: [[0; 16]; PANEL],
        offsets: [[0; 16]; PANEL],
        mins: [[0; 16]; PANEL],
        d: [[0.0; 8]; PANEL],
        m: [[0.0; 8]; PANEL],
    };
}

impl<T: Dot256> WideKernel for Matmul<'_, '_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Wide>(self, s: S) {
        let Matmul { weights, k, x, out, .. } = self;
        let n_blocks = k / 256;
        let row_bytes = n_blocks * T::BYTES;
        let mut panel = Panel::ZERO;
        let mut room = Room::EMPTY;
        for (p, weights) in weights.chunks(PANEL * row_bytes).enumerate() {
            let rows = weights.len() / row_bytes;
            for first in (0..x.vectors).step_by(VECTORS) {
                let vectors = VECTORS.min(x.vectors - first);
                let sums = room.zeros(vectors);
                for b in 0..n_blocks {
                    for (r, row) in weights.chunks_exact(row_bytes).enumerate() {
                        let block = &row[b * T::BYTES..(b + 1) * T::BYTES];
                        prefetch(s, &row[(b + 1) * T::BYTES..], T::BYTES);
                        fill256::<S, T>(s, &mut panel, r, block);
                    }
                    let at = (b, first, vectors);
                    tiles(s, Tile256::<T>(PhantomData), (&panel, rows), x, at, sums);
                }
                write(out, sums, p * PANEL..p * PANEL + rows, first);
            }
        }
    }
}

/// Asks for the row's next bytes, which the panel needs after this block.
#[inline(always)]
pub(super) fn prefetch<S: Wide>(s: S, next: &[u8], bytes: usize) {
    for at in (0..bytes).step_by(64) {
        s.prefetch(next.as_ptr().wrapping_add(at));
    }
}

/// One row's block into the panel.
#[inline(always)]
fn fill256<S: Wide, T: Dot256>(s: S, panel: &mut Panel, r: usize, block: &[u8]) {
    let (halves, _) = panel.codes[r].as_chunks_mut::<32>();
    for (codes, at) in T::codes(s, block).into_iter().zip(T::HALVES) {
        if let Ok([a, b]) = halves.get_disjoint_mut(at.map(|at| at / 32)) {
            s.store_halves(codes, a, b);
        }
    }
    let (scales, mins) = T::scales(block);
    for i in 0..256 / T::SUB {
        let at = i * (T::SUB / 16);
        panel.scales[r][i] = i32::from(scales[at]);
        if T::OFFSET != 0 && T::SUB < 256 {
            panel.offsets[r][i] = i16::from(scales[at]) * -(T::OFFSET as i16);
        }
        if T::MINS {
            panel.mins[r][i] = i16::from(mins[at]);
        }
    }
    let [d, m] = T::factors(s, block);
    (panel.d[r][0], panel.m[r][0]) = (d, m);
}

/// Sums to the output, rows and columns exchanged.
pub(super) fn write(out: &mut Stripe<'_>, sums: &Sums, columns: Range<usize>, first: usize) {
    let from = first * LANE_ROWS;
    for row in from..out.n_rows().min(from + sums.len() * LANE_ROWS) {
        let (v, lane) = ((row - from) / LANE_ROWS, row % LANE_ROWS);
        for (out, sums) in out.row(row)[columns.clone()].iter_mut().zip(&sums[v]) {
            *out = sums[lane];
        }
    }
}

/// What a tile does with 256 values of K.
pub(super) trait Tile: Copy {
    /// `R` weight rows from `row` on, `C` vectors from `vector` on; `first` is the vector that
    /// `sums` begin with.
    fn run<S: Wide, const R: usize, const C: usize>(
        self,
        s: S,
        panel: &Panel,
        x: Packed<'_>,
        at: (usize, usize, usize, usize),
        sums: &mut Sums,
    );
}

/// All tiles of a panel against `vectors` from `first` on, at block `b`.
#[inline(always)]
pub(super) fn tiles<S: Wide, T: Tile>(
    s: S,
    tile: T,
    (panel, rows): (&Panel, usize),
    x: Packed<'_>,
    (b, first, vectors): (usize, usize, usize),
    sums: &mut Sums,
) {
    let (step, wide) = if S::REGISTERS >= 32 { (6, 2) } else { (2, 1) };
    for v in (0..vectors).step_by(wide) {
        for row in (0..rows).step_by(step) {
            let at = (b, row, first, v);
            if S::REGISTERS < 32 {
                tile.run::<S, 2, 1>(s, panel, x, at, sums);
            } else if v + 1 < vectors {
                tile.run::<S, 6, 2>(s, panel, x, at, sums);
            } else {
                tile.run::<S, 6, 1>(s, panel, x, at, sums);
            }
        }
    }
}

/// Line `index` of sixteen numbers.
#[inline(always)]
pub(super) fn floats(lines: &[f32], index: usize) -> &[f32; 16] {
    lines[index * 16..].first_chunk().unwrap_or(&[0.0; 16])
}

/// Line `index` of sixteen sums.
#[inline(always)]
fn ints(lines: &[i32], index: usize) -> &[i32; 16] {
    lines[index * 16..].first_chunk().unwrap_or(&[0; 16])
}

#[inline(always)]
pub(super) fn load_sums<S: Wide, const C: usize>(
    s: S,
    lines: &[i32],
    (index, step): (usize, usize),
) -> [S::I; C] {
    let mut x = [s.zero_i(); C];
    for c in 0..C {
        x[c] = s.load_i(ints(lines, index + c * step));
    }
    x
}

/// Adds factors times sums of `sub` values, a pair at a time.
#[inline(always)]
fn words<S: Wide, const R: usize, const C: usize>(
    s: S,
    mut to: [[S::I; C]; R],
    (factors, row): (&[[i16; 16]; PANEL], usize),
    x: Packed<'_>,
    (at, sub): (usize, usize),
) -> [[S::I; C]; R] {
    let (first, count) = if sub == 16 { (0, 8) } else { (8, 4) };
    for p in 0..count {
        let sums: [S::I; C] = load_sums(s, x.sums, (SUM_LINES * at + first + p, SUM_LINES));
        for r in 0..R {
            let factor = s.splat_words(&factors[row + r], p);
            for c in 0..C {
                to[r][c] = s.dot_words(to[r][c], sums[c], factor);
            }
        }
    }
    to
}

/// -OFFSET times the sum of 256 values.
#[inline(always)]
fn less<S: Wide, const C: usize>(s: S, x: Packed<'_>, at: usize, offset: i32) -> [S::I; C] {
    let mut out = [s.zero_i(); C];
    for p in 0..4 {
        let sums: [S::I; C] = load_sums(s, x.sums, (SUM_LINES * at + 8 + p, SUM_LINES));
        for c in 0..C {
            out[c] = s.dot_words(out[c], sums[c], s.splat_words(&[1; 16], 0));
        }
    }
    for sum in &mut out {
        *sum = s.mul_add_i(s.zero_i(), *sum, s.splat_i(-offset));
    }
    out
}

/// Adds products of codes with x. `sixteens` are places in the panel's rows, `lines` the first line
/// of x and how far vectors are apart; `wide` codes may be above 127.
#[inline(always)]
pub(super) fn dots<S: Wide, const R: usize, const C: usize>(
    s: S,
    acc: [[S::I; C]; R],
    (codes, row): (&[[u8; 256]; PANEL], usize),
    (x, sixteens, lines): (Packed<'_>, Range<usize>, (usize, usize)),
    wide: bool,
) -> [[S::I; C]; R] {
    if S::REGISTERS >= 32 {
        return quads(s, acc, (codes, row), (x, sixteens, lines), wide);
    }
    let (mut w, mut xs) = ([&[][..]; R], [&[][..]; C]);
    for r in 0..R {
        w[r] = &codes[row + r].as_chunks().0[sixteens.clone()];
    }
    for c in 0..C {
        let lines = &x.qs[64 * (lines.0 + c * lines.1)..][..256 * sixteens.len()];
        xs[c] = lines.as_chunks().0.as_chunks().0;
    }
    if wide { s.dot_tile::<R, C, 128>(acc, w, xs) } else { s.dot_tile::<R, C, 0>(acc, w, xs) }
}

/// The same for tiles of 32 registers, which are 1 to 2 % faster line by line than over slices;
/// those of fewer are 3 to 17 % slower.
#[inline(always)]
fn quads<S: Wide, const R: usize, const C: usize>(
    s: S,
    mut acc: [[S::I; C]; R],
    (codes, row): (&[[u8; 256]; PANEL], usize),
    (x, sixteens, lines): (Packed<'_>, Range<usize>, (usize, usize)),
    wide: bool,
) -> [[S::I; C]; R] {
    for (i, quad) in (4 * sixteens.start..4 * sixteens.end).enumerate() {
        let mut xs = [s.splat_b(0); C];
        for c in 0..C {
            let line = 64 * (lines.0 + c * lines.1 + i);
            xs[c] = s.load_x(x.qs[line..].first_chunk().unwrap_or(&[0; 64]));
        }
        for r in 0..R {
            let w = s.splat_quad(&codes[row + r].as_chunks().0[quad]);
            for c in 0..C {
                acc[r][c] = if wide {
                    s.dot_quads::<128>(acc[r][c], w, xs[c])
                } else {
                    s.dot_quads::<0>(acc[r][c], w, xs[c])
                };
            }
        }
    }
    acc
}

struct Tile256<T>(PhantomData<T>);
impl<T> Clone for Tile256<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Tile256<T> {}

impl<T: Dot256> Tile for Tile256<T> {
    #[inline(always)]
    fn run<S: Wide, const R: usize, const C: usize>(
        self,
        s: S,
        panel: &Panel,
        x: Packed<'_>,
        (b, row, first, v): (usize, usize, usize, usize),
        sums: &mut Sums,
    ) {
        let at = b * x.vectors + first + v;
        let mut total = [[s.zero_i(); C]; R];
        let exact = T::OFFSET == 0 || (T::OFFSET == 128 && S::SIGNED_QUADS);
        let mut start = [s.zero_i(); C];
        if !exact && T::SUB == 256 {
            start = less(s, x, at, T::OFFSET);
        }
        for sub in 0..256 / T::SUB {
            let mut acc = [start; R];
            let sixteens = sub * (T::SUB / 16)..(sub + 1) * (T::SUB / 16);
            let lines = (64 * at + 4 * sixteens.start, 64);
            let wide = T::OFFSET == 128;
            acc = dots(s, acc, (&panel.codes, row), (x, sixteens, lines), wide);
            for r in 0..R {
                let scale = s.splat_i(panel.scales[row + r][sub]);
                for c in 0..C {
                    total[r][c] = s.mul_add_i(total[r][c], acc[r][c], scale);
                }
            }
        }
        if !exact && T::SUB < 256 {
            total = words(s, total, (&panel.offsets, row), x, (at, T::SUB));
        }
        let mut values = [[s.splat(0.0); C]; R];
        for r in 0..R {
            let d = s.splat(panel.d[row + r][0]);
            for c in 0..C {
                values[r][c] = s.mul(s.to_f(total[r][c]), d);
            }
        }
        if T::MINS {
            let mins = words(s, [[s.zero_i(); C]; R], (&panel.mins, row), x, (at, T::SUB));
            for r in 0..R {
                let dmin = s.splat(panel.m[row + r][0]);
                for c in 0..C {
                    values[r][c] = s.fnma(s.to_f(mins[r][c]), dmin, values[r][c]);
                }
            }
        }
        for c in 0..C {
            let dx = s.load(floats(x.ds, at + c));
            for r in 0..R {
                let sum = &mut sums[v + c][row + r];
                s.store(s.fma(values[r][c], dx, s.load(sum)), sum);
            }
        }
    }
}
