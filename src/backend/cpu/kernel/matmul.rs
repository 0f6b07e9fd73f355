//! Many batch rows through integer weights. Weight rows are unpacked to bytes for 256 values of K
//! at a time, a panel that stays in the nearest cache, and meet all batch rows before the next.
//!
//! ```text
//! tile: R weight rows x C vectors of 16 batch rows (6 x 2 in 32 registers, 2 x 1 in 16)
//!   acc[r][c] += four bytes of weight row r (broadcast) . four bytes of 16 batch rows
//!   after a sub-block: total += acc * its scale, exact; after a block: the three f32 operations
//! ```
//! The f32 sums of a panel stay in `sums` (second cache) from block to block.

use super::super::simd::wide::{Wide, WideKernel};
use super::matvec::{Dot32, Dot256};
use super::pack::{LANE_ROWS, Packed};
use super::stripe::Stripe;
use std::marker::PhantomData;

/// Weight rows of a panel; a multiple of the tile's.
pub const PANEL: usize = 48;
/// Vectors of batch rows whose sums stay on the stack.
const VECTORS: usize = 16;

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

/// The same for 32-value blocks.
pub struct Matmul32<'a, 'b, T>(pub Matmul<'a, 'b, T>);

/// f32 sums: `[weight rows][vectors][16]`.
type Sums = [[[f32; LANE_ROWS]; VECTORS]; PANEL];

/// 256 values of a panel's rows.
#[repr(C, align(64))]
struct Panel {
    /// `[row][256]`.
    codes: [[u8; 256]; PANEL],
    /// Of every 16.
    scales: [[i32; 16]; PANEL],
    /// i16 pairs of factors on the sums of 16, added to T.
    offsets: [[i16; 16]; PANEL],
    /// i16 pairs of mins.
    mins: [[i16; 16]; PANEL],
    /// Factors on T, or of each 32.
    d: [[f32; 8]; PANEL],
    /// Factors on M, or added of each 32.
    m: [[f32; 8]; PANEL],
}

impl Panel {
    const ZERO: Panel = Panel {
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
        let mut sums: Sums = [[[0.0; LANE_ROWS]; VECTORS]; PANEL];
        for (p, weights) in weights.chunks(PANEL * row_bytes).enumerate() {
            let rows = weights.len() / row_bytes;
            for first in (0..x.vectors).step_by(VECTORS) {
                let vectors = VECTORS.min(x.vectors - first);
                sums[..rows].as_flattened_mut().fill([0.0; LANE_ROWS]);
                for b in 0..n_blocks {
                    for (r, row) in weights.chunks_exact(row_bytes).enumerate() {
                        let block = &row[b * T::BYTES..(b + 1) * T::BYTES];
                        prefetch(s, &row[(b + 1) * T::BYTES..], T::BYTES);
                        fill256::<S, T>(s, &mut panel, r, block);
                    }
                    let at = (b, first, vectors);
                    tiles(s, Tile256::<T>(PhantomData), (&panel, rows), x, at, &mut sums);
                }
                write(out, &sums, p * PANEL..p * PANEL + rows, first);
            }
        }
    }
}

/// Asks for the row's next bytes, which the panel needs after this block.
#[inline(always)]
fn prefetch<S: Wide>(s: S, next: &[u8], bytes: usize) {
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
    panel.scales[r] = scales.map(i32::from);
    if T::OFFSET != 0 {
        panel.offsets[r] = scales.map(|scale| i16::from(scale) * -(T::OFFSET as i16));
    }
    if T::MINS {
        panel.mins[r] = mins.map(i16::from);
    }
    let [d, m] = T::factors(s, block);
    (panel.d[r][0], panel.m[r][0]) = (d, m);
}

impl<T: Dot32> WideKernel for Matmul32<'_, '_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Wide>(self, s: S) {
        let Matmul { weights, k, x, out, .. } = self.0;
        let row_bytes = k / 32 * T::BYTES;
        let mut panel = Panel::ZERO;
        let mut sums: Sums = [[[0.0; LANE_ROWS]; VECTORS]; PANEL];
        for (p, weights) in weights.chunks(PANEL * row_bytes).enumerate() {
            let rows = weights.len() / row_bytes;
            for first in (0..x.vectors).step_by(VECTORS) {
                let vectors = VECTORS.min(x.vectors - first);
                sums[..rows].as_flattened_mut().fill([0.0; LANE_ROWS]);
                for b in 0..k.div_ceil(256) {
                    let count = 8.min(k / 32 - 8 * b);
                    for (r, row) in weights.chunks_exact(row_bytes).enumerate() {
                        let blocks = &row[8 * b * T::BYTES..][..count * T::BYTES];
                        prefetch(s, &row[8 * b * T::BYTES + blocks.len()..], blocks.len());
                        fill32::<S, T>(s, &mut panel, r, blocks);
                    }
                    let at = (b, first, vectors);
                    let tile = Tile32::<T>(count, PhantomData);
                    tiles(s, tile, (&panel, rows), x, at, &mut sums);
                }
                write(out, &sums, p * PANEL..p * PANEL + rows, first);
            }
        }
    }
}

/// Up to eight blocks of one row into the panel.
#[inline(always)]
fn fill32<S: Wide, T: Dot32>(s: S, panel: &mut Panel, r: usize, blocks: &[u8]) {
    let pairs = panel.codes[r].as_chunks_mut::<64>().0.iter_mut();
    for (two, codes) in blocks.chunks(2 * T::BYTES).zip(pairs) {
        let (a, b) = two.split_at(T::BYTES);
        s.store_b(T::codes(s, a, if b.is_empty() { a } else { b }), codes);
    }
    let factors = panel.d[r].iter_mut().zip(&mut panel.m[r]);
    for (block, (d, m)) in blocks.chunks_exact(T::BYTES).zip(factors) {
        *d = T::d(s, block);
        if T::MIN {
            *m = s.half(u16::from_le_bytes([block[2], block[3]]));
        }
    }
}

/// Sums to the output, rows and columns exchanged.
fn write(out: &mut Stripe<'_>, sums: &Sums, columns: std::ops::Range<usize>, first: usize) {
    let from = first * LANE_ROWS;
    for row in from..out.n_rows().min(from + VECTORS * LANE_ROWS) {
        let (v, lane) = ((row - from) / LANE_ROWS, row % LANE_ROWS);
        for (out, sums) in out.row(row)[columns.clone()].iter_mut().zip(sums) {
            *out = sums[v][lane];
        }
    }
}

/// What a tile does with 256 values of K.
trait Tile: Copy {
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
fn tiles<S: Wide, T: Tile>(
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
fn floats(lines: &[f32], index: usize) -> &[f32; 16] {
    lines[index * 16..].first_chunk().unwrap_or(&[0.0; 16])
}

/// Line `index` of sixteen sums.
#[inline(always)]
fn ints(lines: &[i32], index: usize) -> &[i32; 16] {
    lines[index * 16..].first_chunk().unwrap_or(&[0; 16])
}

/// Line `index` of sixteen times four bytes.
#[inline(always)]
fn quads(lines: &[i8], index: usize) -> &[i8; 64] {
    lines[index * 64..].first_chunk().unwrap_or(&[0; 64])
}

#[inline(always)]
fn load_quads<S: Wide, const C: usize>(
    s: S,
    lines: &[i8],
    (index, step): (usize, usize),
) -> [S::B; C] {
    let mut x = [s.splat_b(0); C];
    for c in 0..C {
        x[c] = s.load_x(quads(lines, index + c * step));
    }
    x
}

#[inline(always)]
fn load_sums<S: Wide, const C: usize>(
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

/// Adds factors times sums of 16, a pair at a time.
#[inline(always)]
fn words<S: Wide, const R: usize, const C: usize>(
    s: S,
    mut to: [[S::I; C]; R],
    (factors, row): (&[[i16; 16]; PANEL], usize),
    x: Packed<'_>,
    at: usize,
) -> [[S::I; C]; R] {
    for p in 0..8 {
        let sums: [S::I; C] = load_sums(s, x.sums, (8 * at + p, 8));
        for r in 0..R {
            let factor = s.splat_words(&factors[row + r], p);
            for c in 0..C {
                to[r][c] = s.dot_words(to[r][c], sums[c], factor);
            }
        }
    }
    to
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
        for sub in 0..256 / T::SUB {
            let mut acc = [[s.zero_i(); C]; R];
            for i in 0..T::SUB / 4 {
                let k4 = sub * (T::SUB / 4) + i;
                let x: [S::B; C] = load_quads(s, x.qs, (64 * at + k4, 64));
                for r in 0..R {
                    let w = s.splat_quad(&panel.codes[row + r], k4);
                    for c in 0..C {
                        acc[r][c] = if T::OFFSET == 128 {
                            s.dot_quads::<128>(acc[r][c], w, x[c])
                        } else {
                            s.dot_quads::<0>(acc[r][c], w, x[c])
                        };
                    }
                }
            }
            for r in 0..R {
                let scale = s.splat_i(panel.scales[row + r][sub * (T::SUB / 16)]);
                for c in 0..C {
                    total[r][c] = s.mul_add_i(total[r][c], acc[r][c], scale);
                }
            }
        }
        if T::OFFSET != 0 && !(T::OFFSET == 128 && S::SIGNED_QUADS) {
            total = words(s, total, (&panel.offsets, row), x, at);
        }
        let mut values = [[s.splat(0.0); C]; R];
        for r in 0..R {
            let d = s.splat(panel.d[row + r][0]);
            for c in 0..C {
                values[r][c] = s.mul(s.to_f(total[r][c]), d);
            }
        }
        if T::MINS {
            let mins = words(s, [[s.zero_i(); C]; R], (&panel.mins, row), x, at);
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
                let sum = &mut sums[row + r][v + c];
                s.store(s.fma(values[r][c], dx, s.load(sum)), sum);
            }
        }
    }
}

struct Tile32<T>(usize, PhantomData<T>);
impl<T> Clone for Tile32<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Tile32<T> {}

impl<T: Dot32> Tile for Tile32<T> {
    #[inline(always)]
    fn run<S: Wide, const R: usize, const C: usize>(
        self,
        s: S,
        panel: &Panel,
        x: Packed<'_>,
        (b, row, first, v): (usize, usize, usize, usize),
        sums: &mut Sums,
    ) {
        let count = self.0;
        // Lines of 32 values of K before this chunk and vector.
        let at = 8 * b * x.vectors + (first + v) * count;
        let mut values = [[s.splat(0.0); C]; R];
        for r in 0..R {
            for c in 0..C {
                values[r][c] = s.load(&sums[row + r][v + c]);
            }
        }
        for sub in 0..count {
            let sum: [S::I; C] = load_sums(s, x.sums, (at + sub, count));
            let exact = T::OFFSET == 0 || (T::OFFSET == 128 && S::SIGNED_QUADS);
            let mut start = [s.zero_i(); C];
            if !exact {
                for c in 0..C {
                    start[c] = s.mul_add_i(start[c], sum[c], s.splat_i(-i32::from(T::OFFSET)));
                }
            }
            let mut acc = [start; R];
            for i in 0..8 {
                let x: [S::B; C] = load_quads(s, x.qs, (8 * (at + sub) + i, 8 * count));
                for r in 0..R {
                    let w = s.splat_quad(&panel.codes[row + r], 8 * sub + i);
                    for c in 0..C {
                        acc[r][c] = if T::OFFSET == 128 {
                            s.dot_quads::<128>(acc[r][c], w, x[c])
                        } else {
                            s.dot_quads::<0>(acc[r][c], w, x[c])
                        };
                    }
                }
            }
            let mut dx = [s.splat(0.0); C];
            for c in 0..C {
                dx[c] = s.load(floats(x.ds, at + sub + c * count));
            }
            for r in 0..R {
                let d = s.splat(panel.d[row + r][sub]);
                for c in 0..C {
                    let dd = s.mul(d, dx[c]);
                    values[r][c] = s.fma(s.to_f(acc[r][c]), dd, values[r][c]);
                    if T::MIN {
                        let m = s.mul(s.splat(panel.m[row + r][sub]), dx[c]);
                        values[r][c] = s.fma(s.to_f(sum[c]), m, values[r][c]);
                    }
                }
            }
        }
        for r in 0..R {
            for c in 0..C {
                s.store(values[r][c], &mut sums[row + r][v + c]);
            }
        }
    }
}
