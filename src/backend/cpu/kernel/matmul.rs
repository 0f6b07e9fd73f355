//! Many batch rows through integer weights. Weight rows are unpacked to bytes for 256 values of K at
//! a time, a panel that stays in the nearest cache, and meet all batch rows before the next 256.
//!
//! ```text
//! tile: R weight rows x C vectors of 16 batch rows (6 x 2 in 32 registers, 2 x 1 in 16)
//!   acc[r][c] += four bytes of weight row r (broadcast) . four bytes of 16 batch rows
//!   after a sub-block: total += acc * its scale, exact; after a block: the three f32 operations
//! ```
//! The f32 sums of a panel stay in `sums` (second cache) from block to block.

use super::super::simd::wide::{Wide, WideKernel};
use super::matvec::Dot32;
use super::pack::{LANE_ROWS, Packed};
use super::stripe::Stripe;
use super::unpack::{Block32, Block256, Type256};
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
    offsets: [[i32; 8]; PANEL],
    /// i16 pairs of mins.
    mins: [[i32; 8]; PANEL],
    /// Factors on T, or of each 32.
    d: [[f32; 8]; PANEL],
    /// Factors on M, or added of each 32.
    m: [[f32; 8]; PANEL],
}

impl Panel {
    const ZERO: Panel = Panel {
        codes: [[0; 256]; PANEL],
        scales: [[0; 16]; PANEL],
        offsets: [[0; 8]; PANEL],
        mins: [[0; 8]; PANEL],
        d: [[0.0; 8]; PANEL],
        m: [[0.0; 8]; PANEL],
    };
}

fn word_pair(a: i32, b: i32) -> i32 {
    b << 16 | (a & 0xffff)
}

impl<T: Type256> WideKernel for Matmul<'_, '_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Wide>(self, s: S) {
        let Matmul { weights, k, x, out, .. } = self;
        let n_blocks = k / 256;
        let row_bytes = n_blocks * T::BYTES;
        let mut panel = Panel::ZERO;
        let mut block = Block256::ZERO;
        let mut sums: Sums = [[[0.0; LANE_ROWS]; VECTORS]; PANEL];
        for (p, weights) in weights.chunks(PANEL * row_bytes).enumerate() {
            let rows = weights.len() / row_bytes;
            for first in (0..x.vectors).step_by(VECTORS) {
                let vectors = VECTORS.min(x.vectors - first);
                sums[..rows].as_flattened_mut().fill([0.0; LANE_ROWS]);
                for b in 0..n_blocks {
                    for (r, row) in weights.chunks_exact(row_bytes).enumerate() {
                        T::unpack(s, &row[b * T::BYTES..(b + 1) * T::BYTES], &mut block);
                        fill256::<T>(&mut panel, r, &block);
                    }
                    let at = (b, first, vectors);
                    tiles(s, Tile256::<T>(PhantomData), (&panel, rows), x, at, &mut sums);
                }
                write(out, &sums, p * PANEL..p * PANEL + rows, first);
            }
        }
    }
}

/// One row's block into the panel.
#[inline(always)]
fn fill256<T: Type256>(panel: &mut Panel, r: usize, block: &Block256) {
    panel.codes[r] = block.codes;
    for (to, scale) in panel.scales[r].iter_mut().zip(block.scales) {
        *to = i32::from(scale);
    }
    for p in 0..8 {
        if T::OFFSET != 0 {
            let factor = |i: usize| -T::OFFSET * i32::from(block.scales[i]);
            panel.offsets[r][p] = word_pair(factor(2 * p), factor(2 * p + 1));
        }
        if T::MINS {
            let min = |i: usize| i32::from(block.mins[i]);
            panel.mins[r][p] = word_pair(min(2 * p), min(2 * p + 1));
        }
    }
    (panel.d[r][0], panel.m[r][0]) = (block.d, block.dmin);
}

impl<T: Dot32> WideKernel for Matmul32<'_, '_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Wide>(self, s: S) {
        let Matmul { weights, k, x, out, .. } = self.0;
        let row_bytes = k / 32 * T::BYTES;
        let mut panel = Panel::ZERO;
        let mut block = Block32::ZERO;
        let mut sums: Sums = [[[0.0; LANE_ROWS]; VECTORS]; PANEL];
        for (p, weights) in weights.chunks(PANEL * row_bytes).enumerate() {
            let rows = weights.len() / row_bytes;
            for first in (0..x.vectors).step_by(VECTORS) {
                let vectors = VECTORS.min(x.vectors - first);
                sums[..rows].as_flattened_mut().fill([0.0; LANE_ROWS]);
                for b in 0..k.div_ceil(256) {
                    let count = 8.min(k / 32 - 8 * b);
                    for (r, row) in weights.chunks_exact(row_bytes).enumerate() {
                        let blocks = row[8 * b * T::BYTES..].chunks_exact(T::BYTES);
                        for (i, bytes) in blocks.take(count).enumerate() {
                            T::unpack(s, bytes, &mut block);
                            let codes = &mut panel.codes[r][32 * i..32 * i + 32];
                            for (to, code) in codes.iter_mut().zip(block.codes) {
                                *to = code.cast_unsigned().wrapping_add(T::OFFSET);
                            }
                            (panel.d[r][i], panel.m[r][i]) = (block.d, block.m);
                        }
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

struct Tile256<T>(PhantomData<T>);
impl<T> Clone for Tile256<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Tile256<T> {}

impl<T: Type256> Tile for Tile256<T> {
    #[inline(always)]
    fn run<S: Wide, const R: usize, const C: usize>(
        self,
        s: S,
        panel: &Panel,
        x: Packed<'_>,
        (b, row, first, v): (usize, usize, usize, usize),
        sums: &mut Sums,
    ) {
        let n = x.vectors;
        let at = first + v;
        let mut total = [[s.zero_i(); C]; R];
        for sub in 0..256 / T::SUB {
            let mut acc = [[s.zero_i(); C]; R];
            for i in 0..T::SUB / 4 {
                let k4 = sub * (T::SUB / 4) + i;
                let base = (64 * b + k4) * n + at;
                let x: [S::B; C] = std::array::from_fn(|c| s.load_x(quads(x.qs, base + c)));
                for r in 0..R {
                    let w = s.splat_quad(&panel.codes[row + r], k4);
                    for c in 0..C {
                        acc[r][c] = s.dot_quads::<0>(acc[r][c], w, x[c]);
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
        let pairs = |p: usize| -> [S::I; C] {
            std::array::from_fn(|c| s.load_i(ints(x.sums, (8 * b + p) * n + at + c)))
        };
        let words = |to: &mut [[S::I; C]; R], factors: &[[i32; 8]; PANEL]| {
            for p in 0..8 {
                let sums = pairs(p);
                for r in 0..R {
                    let factor = s.splat_i(factors[row + r][p]);
                    for c in 0..C {
                        to[r][c] = s.dot_words(to[r][c], sums[c], factor);
                    }
                }
            }
        };
        if T::OFFSET != 0 {
            words(&mut total, &panel.offsets);
        }
        let mut values = [[s.splat(0.0); C]; R];
        for r in 0..R {
            let d = s.splat(panel.d[row + r][0]);
            for c in 0..C {
                values[r][c] = s.mul(s.to_f(total[r][c]), d);
            }
        }
        if T::MINS {
            let mut mins = [[s.zero_i(); C]; R];
            words(&mut mins, &panel.mins);
            for r in 0..R {
                let dmin = s.splat(panel.m[row + r][0]);
                for c in 0..C {
                    values[r][c] = s.fnma(s.to_f(mins[r][c]), dmin, values[r][c]);
                }
            }
        }
        for c in 0..C {
            let dx = s.load(floats(x.ds, b * n + at + c));
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
        let n = x.vectors;
        let at = first + v;
        let mut values: [[S::F; C]; R] =
            std::array::from_fn(|r| std::array::from_fn(|c| s.load(&sums[row + r][v + c])));
        for sub in 0..self.0 {
            let block = 8 * b + sub;
            let sum: [S::I; C] =
                std::array::from_fn(|c| s.load_i(ints(x.sums, block * n + at + c)));
            let exact = T::OFFSET == 0 || (T::OFFSET == 128 && S::SIGNED_QUADS);
            let start = if exact {
                [s.zero_i(); C]
            } else {
                let offset = s.splat_i(-i32::from(T::OFFSET));
                sum.map(|sum| s.mul_add_i(s.zero_i(), sum, offset))
            };
            let mut acc = [start; R];
            for i in 0..8 {
                let base = (8 * block + i) * n + at;
                let x: [S::B; C] = std::array::from_fn(|c| s.load_x(quads(x.qs, base + c)));
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
            let dx: [S::F; C] = std::array::from_fn(|c| s.load(floats(x.ds, block * n + at + c)));
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
