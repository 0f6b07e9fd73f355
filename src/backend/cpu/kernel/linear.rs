//! y = W x for a range of weight rows and all batch rows, by tensor type.
//!
//! The order of additions is fixed by the type, never by tier or number of rows:
//! ```text
//! 256-value blocks: v = f32(T) d; v = fma(-f32(M), dmin, v); acc = fma(v, dx, acc), in block order
//!  32-value blocks: acc = fma(f32(T), d dx, acc); with m: acc = fma(f32(sum), m dx, acc)
//!  with two factors: v = f32(T of the first 16) d; v = fma(f32(T of the others), m, v);
//!                    acc = fma(v, dx, acc)
//! floats:           16 f32 lanes over K (lane l takes k = l mod 16), fma, then added by halves
//! ```
//! T and M are exact integers.

use super::super::simd::{Kernel, Simd, Tier};
use super::by_row::ByRow;
use super::float::FloatType;
use super::in_order::{BLOCKS_MAX, InRows, Ordered};
use super::lane_types::{Lanes32, Lanes256};
use super::lanes::{By32, By256, Few, ROWS as LANES, ROWS_MAX, Tile};
use super::linear_float::RowsFloat;
use super::matmul::Matmul;
use super::matmul_32::Matmul32;
use super::pack::{LANE_ROWS, Packed, SUM_LINES};
use super::parts::{ByParts, Parts};
use super::quantise::{ActKind, Bytes};
use super::registers::{Dot32, Dot256};
use super::stripe::Stripe;
use super::unpack::{Block32, Block256, Q6K, Type32, Type256};
use crate::quant::TensorType;
use std::marker::PhantomData;
use std::ops::Range;

/// Batch rows that one unpacking of a weight block serves.
const ROWS: usize = 8;

/// From so many batch rows on panels pay for floats, and for types that also go in tiles of up to
/// 8 with weight rows in lanes. Panels have 16 batch rows in lanes whether they are there or not:
/// `[65536, 2048]` of Q4_K on 2 threads takes 11.8 ms there for 8 rows, 3.8 ms in tiles (Q8_0 17.9
/// and 5.6, Q4_0 15.8 and 4.1). Pieces for panels are short: 23 instead of 13 ms for 8 rows of F16.
const MANY_LANES: usize = 17;
/// The same for types that go in the order of memory, four rows at a time: a fourth time does not
/// pay (32,768 rows of IQ2_XXS take 7.3 ms for 12, 9.7 for 16; in panels 8.7 for both).
const MANY_ORDER: usize = 13;
/// The same for other types: those who look codes up by row.
const MANY: usize = 6;

/// Blocks of a row of Q6_K up to which it goes in the order of memory: of longer ones x does not
/// stay in the nearest cache, and lanes read faster.
const BLOCKS_Q6_K: usize = 32;

/// Activations as a weight type wants them.
#[derive(Clone, Copy, Debug)]
pub enum Acts<'a> {
    /// `[n_rows, k]`.
    Float(&'a [f32]),
    /// Blocks of 32.
    Block32(Bytes<'a>),
    /// Blocks of 256.
    Block256(Bytes<'a>),
}

/// One call: the weight rows behind a stripe of the output.
pub struct Args<'a, 'b> {
    /// Weight rows, one for each column of `out`.
    pub weights: &'a [u8],
    /// Values in a row.
    pub k: usize,
    /// `[n_rows, k]`.
    pub acts: Acts<'a>,
    /// The same packed, if there are enough rows.
    pub packed: Option<Packed<'a>>,
    /// `[n_rows, weight rows]`.
    pub out: &'a mut Stripe<'b>,
}

impl Args<'_, '_> {
    /// Whether all lengths belong together.
    fn fits(&self, kind: TensorType) -> bool {
        let n = self.out.n_rows();
        let (block, sums) =
            if matches!(self.acts, Acts::Block256(_)) { (256, SUM_LINES) } else { (32, 1) };
        let packed = self.packed.is_none_or(|p| {
            let rows = p.vectors * LANE_ROWS;
            rows >= n
                && p.qs.len() >= rows * self.k
                && p.sums.len() >= rows * (self.k / block) * sums
                && p.ds.len() >= rows * self.k / block
        });
        let bytes = |b: Bytes<'_>, block: usize| {
            b.qs.len() >= n * self.k
                && b.ds.len() >= n * self.k / block
                && b.sums.len() >= n * self.k / 16
                && b.sums32.len() >= n * self.k / 32
                && b.starts.len() >= n * self.k / 32
        };
        self.k > 0
            && packed
            && kind
                .row_bytes(self.k)
                .is_some_and(|row| self.weights.len() == row * self.out.width())
            && match self.acts {
                Acts::Float(x) => x.len() >= n * self.k,
                Acts::Block32(b) => self.k.is_multiple_of(32) && bytes(b, 32),
                Acts::Block256(b) => self.k.is_multiple_of(256) && bytes(b, 256),
            }
    }
}

/// The kernel of one tensor type in one tier.
#[derive(Clone, Copy)]
pub struct Linear {
    /// The weight's type.
    pub kind: TensorType,
    /// What it wants.
    pub act: ActKind,
    /// Name of the weight type in kernels' names.
    pub weight: &'static str,
    /// Batch rows from which they are packed, and weight rows handed out by panels.
    pub many_from: usize,
    run: fn(Tier, TensorType, Args<'_, '_>),
}

impl Linear {
    /// The kernel of a type with 256-value blocks.
    #[must_use]
    pub fn of256<T: Dot256 + Lanes256>(kind: TensorType) -> Self {
        let run = |tier: Tier, _, mut args: Args<'_, '_>| {
            if let Acts::Block256(x) = args.acts
                && !(few::<By256<T>>(tier, x, &mut args) || many256::<T>(tier, &mut args))
            {
                tier.call(Rows::<As256<T>> { x, args, life: PhantomData });
            }
        };
        Linear { kind, act: ActKind::Block256, weight: T::NAME, many_from: MANY_LANES, run }
    }

    /// The kernel of Q6_K, one row of which goes in the order of memory where the tier can and rows
    /// are not long.
    #[must_use]
    pub fn of_q6_k(kind: TensorType) -> Self {
        let run = |tier: Tier, kind, mut args: Args<'_, '_>| {
            if let Acts::Block256(x) = args.acts
                && !(args.out.n_rows() == 1
                    && args.k <= 256 * BLOCKS_Q6_K
                    && in_order::<Q6K>(tier, x, &mut args))
            {
                (Linear::of256::<Q6K>(kind).run)(tier, kind, args);
            }
        };
        Linear { run, ..Linear::of256::<Q6K>(kind) }
    }

    /// The kernel of a type with 32-value blocks.
    #[must_use]
    pub fn of32<T: Lanes32>(kind: TensorType) -> Self {
        Linear::by32::<T, By32<T>>(kind)
    }

    /// The kernel of a type whose blocks hold several parts of 32 values.
    #[must_use]
    pub fn of_parts<T: Parts>(kind: TensorType) -> Self {
        Linear::by32::<T, ByParts<T>>(kind)
    }

    /// The same for any tiles of few rows.
    fn by32<T: Dot32, L: Tile>(kind: TensorType) -> Self {
        let run = |tier: Tier, _, mut args: Args<'_, '_>| {
            if let Acts::Block32(x) = args.acts
                && !(few::<L>(tier, x, &mut args) || many32::<T>(tier, &mut args))
            {
                tier.call(Rows::<As32<T>> { x, args, life: PhantomData });
            }
        };
        Linear { kind, act: ActKind::Block32, weight: T::NAME, many_from: MANY_LANES, run }
    }

    /// The kernel of a type with 256-value blocks whose codes are looked up.
    #[must_use]
    pub fn of_table256<T: Dot256>(kind: TensorType) -> Self {
        let run = |tier: Tier, _, args: Args<'_, '_>| {
            let Acts::Block256(x) = args.acts else { return };
            let (weights, k, out, life) = (args.weights, args.k, &mut *args.out, PhantomData);
            let done = match args.packed {
                Some(x) => tier.call_wide(Matmul::<T> { weights, k, x, out, life }),
                None => tier.call_wide(ByRow::<T> { weights, k, x, out, life }),
            };
            if done.is_none() {
                tier.call(Rows::<As256<T>> { x, args, life: PhantomData });
            }
        };
        Linear { kind, act: ActKind::Block256, weight: T::NAME, many_from: MANY, run }
    }

    /// The same in the order of memory, where the tier can.
    #[must_use]
    pub fn of_order256<T: Dot256 + Ordered>(kind: TensorType, tier: Tier) -> Self {
        let run = |tier: Tier, kind, mut args: Args<'_, '_>| {
            if let Acts::Block256(x) = args.acts
                && !in_order::<T>(tier, x, &mut args)
            {
                (Linear::of_table256::<T>(kind).run)(tier, kind, args);
            }
        };
        let many_from = if tier.is_in_order() { MANY_ORDER } else { MANY };
        Linear { run, many_from, ..Linear::of_table256::<T>(kind) }
    }

    /// The kernel of a float type.
    #[must_use]
    pub fn of_float<T: FloatType>(kind: TensorType) -> Self {
        let run = |tier: Tier, _, args: Args<'_, '_>| {
            if let Acts::Float(x) = args.acts {
                tier.call(RowsFloat::<T> { x, args, life: PhantomData });
            }
        };
        Linear { kind, act: ActKind::Float, weight: T::NAME, many_from: MANY_LANES, run }
    }

    /// Checks the shapes, then computes.
    pub fn call(&self, tier: Tier, args: Args<'_, '_>) {
        assert!(args.fits(self.kind), "linear: shapes of {} do not fit", self.kind.name());
        (self.run)(tier, self.kind, args);
    }
}

/// Packed rows through panels; `false` if they are not packed, or the tier has no such kernel.
fn many256<T: Dot256>(tier: Tier, args: &mut Args<'_, '_>) -> bool {
    let (weights, k, Some(x)) = (args.weights, args.k, args.packed) else { return false };
    let many = Matmul::<T> { weights, k, x, out: args.out, life: PhantomData };
    tier.call_wide(many).is_some()
}

/// The same for 32-value blocks.
fn many32<T: Dot32>(tier: Tier, args: &mut Args<'_, '_>) -> bool {
    let (weights, k, Some(x)) = (args.weights, args.k, args.packed) else { return false };
    let many = Matmul::<T> { weights, k, x, out: args.out, life: PhantomData };
    tier.call_wide(Matmul32(many)).is_some()
}

/// Rows that are not packed in the order of memory; `false` if they cannot go that way.
fn in_order<T: Ordered>(tier: Tier, x: Bytes<'_>, args: &mut Args<'_, '_>) -> bool {
    let n = args.out.n_rows();
    let mut first = 0;
    while first < n && args.packed.is_none() && args.k <= 256 * BLOCKS_MAX {
        let done = match n - first {
            1 => in_order_of::<T, 1>(tier, x, args, first),
            2 => in_order_of::<T, 2>(tier, x, args, first),
            _ => in_order_of::<T, 4>(tier, x, args, first),
        };
        let Some(count) = done else { return false };
        first += count;
    }
    first == n
}

/// Up to N rows from `first` on; how many, if this tier can.
fn in_order_of<T: Ordered, const N: usize>(
    tier: Tier,
    x: Bytes<'_>,
    args: &mut Args<'_, '_>,
    first: usize,
) -> Option<usize> {
    let count = N.min(args.out.n_rows() - first);
    let (weights, k, out, life) = (args.weights, args.k, &mut *args.out, PhantomData::<T>);
    let rows = (first, count);
    tier.call_in_order(InRows::<T, N> { weights, k, x, rows, out, life }).then_some(count)
}

/// Few rows in tiles, more too if they are not packed; `false` if this tier has no such kernel.
fn few<T: Tile>(tier: Tier, x: Bytes<'_>, args: &mut Args<'_, '_>) -> bool {
    if args.out.n_rows() >= MANY_LANES && args.packed.is_some() {
        return false;
    }
    let (n, tiles) = (args.out.n_rows(), args.out.width().div_ceil(LANES));
    // More than a tile of batch rows: the second takes the weights out of the second cache.
    let per = if n > ROWS_MAX { 1 } else { tiles };
    for at in (0..tiles).step_by(per.max(1)) {
        let mut first = 0;
        while first < n {
            let tiles = at..at + per;
            let done = match n - first {
                1 => few_of::<T, 1>(tier, x, args, (first, tiles)),
                2 => few_of::<T, 2>(tier, x, args, (first, tiles)),
                3 | 4 => few_of::<T, 4>(tier, x, args, (first, tiles)),
                _ => few_of::<T, ROWS_MAX>(tier, x, args, (first, tiles)),
            };
            let Some(count) = done else { return false };
            first += count;
        }
    }
    true
}

/// Up to N rows from `first` on through some tiles of weight rows; how many, if this tier can.
fn few_of<T: Tile, const N: usize>(
    tier: Tier,
    x: Bytes<'_>,
    args: &mut Args<'_, '_>,
    (first, tiles): (usize, Range<usize>),
) -> Option<usize> {
    let count = N.min(args.out.n_rows() - first);
    let (weights, k, out) = (args.weights, args.k, &mut *args.out);
    let (rows, life) = ((first, count), PhantomData::<T>);
    tier.call_wide(Few::<T, N> { weights, k, x, rows, tiles, out, life })?;
    Some(count)
}

/// A type whose blocks are taken apart in memory, on any tier.
trait Blocks: 'static {
    /// A part of a block taken apart.
    type Block;
    const ZERO: Self::Block;
    const BYTES: usize;
    const PARTS: usize;
    /// Of a part.
    const VALUES: usize;
    fn unpack<S: Simd>(s: S, bytes: &[u8], part: usize, block: &mut Self::Block);
    /// The sum with one part of weights times block `at` of the activations.
    fn step<S: Simd>(s: S, block: &Self::Block, x: Bytes<'_>, at: usize, acc: f32) -> f32;
}

/// 256-value blocks.
struct As256<T>(PhantomData<T>);

impl<T: Type256> Blocks for As256<T> {
    type Block = Block256;
    const ZERO: Block256 = Block256::ZERO;
    const BYTES: usize = T::BYTES;
    const PARTS: usize = 1;
    const VALUES: usize = 256;
    #[inline(always)]
    fn unpack<S: Simd>(s: S, bytes: &[u8], _: usize, block: &mut Block256) {
        T::unpack(s, bytes, block);
    }
    #[inline(always)]
    fn step<S: Simd>(s: S, block: &Block256, x: Bytes<'_>, at: usize, acc: f32) -> f32 {
        let (Some(qs), Some(sums)) =
            (x.qs[256 * at..].first_chunk(), x.sums[16 * at..].first_chunk())
        else {
            return f32::NAN;
        };
        let mut t = s.dot_scaled(&block.codes, qs, &block.scales);
        if T::OFFSET != 0 {
            t = t.wrapping_sub(T::OFFSET.wrapping_mul(s.dot16(&block.scales, sums)));
        }
        let mut v = t as f32 * block.d;
        if T::MINS {
            v = (-(s.dot16(&block.mins, sums) as f32)).mul_add(block.dmin, v);
        }
        v.mul_add(x.ds[at], acc)
    }
}

/// 32-value blocks.
struct As32<T>(PhantomData<T>);

impl<T: Type32> Blocks for As32<T> {
    type Block = Block32;
    const ZERO: Block32 = Block32::ZERO;
    const BYTES: usize = T::BYTES;
    const PARTS: usize = T::PARTS;
    const VALUES: usize = 32;
    #[inline(always)]
    fn unpack<S: Simd>(s: S, bytes: &[u8], part: usize, block: &mut Block32) {
        T::unpack(bytes, part, &mut block.codes);
        [block.d, block.m] = T::d_and_m(s, bytes, part);
    }
    #[inline(always)]
    fn step<S: Simd>(s: S, block: &Block32, x: Bytes<'_>, at: usize, acc: f32) -> f32 {
        let Some(qs) = x.qs[32 * at..].first_chunk() else { return f32::NAN };
        let dx = x.ds[at];
        if T::HALVES {
            let mut halves = [block.codes; 2];
            halves[0][16..].fill(0);
            halves[1][..16].fill(0);
            let v = s.dot32(&halves[0], qs) as f32 * block.d;
            let v = (s.dot32(&halves[1], qs) as f32).mul_add(block.m, v);
            return v.mul_add(dx, acc);
        }
        let mut acc = (s.dot32(&block.codes, qs) as f32).mul_add(block.d * dx, acc);
        if T::MIN {
            acc = f32::from(x.sums32[at]).mul_add(block.m * dx, acc);
        }
        acc
    }
}

struct Rows<'a, 'b, T> {
    x: Bytes<'a>,
    args: Args<'a, 'b>,
    life: PhantomData<T>,
}

impl<T: Blocks> Kernel for Rows<'_, '_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (k, n) = (self.args.k, self.args.out.n_rows());
        let n_blocks = k / T::VALUES / T::PARTS;
        let mut block = T::ZERO;
        for first in (0..n).step_by(ROWS) {
            let count = ROWS.min(n - first);
            for (r, row) in self.args.weights.chunks_exact(n_blocks * T::BYTES).enumerate() {
                let mut acc = [0.0f32; ROWS];
                for b in 0..n_blocks * T::PARTS {
                    let bytes = &row[b / T::PARTS * T::BYTES..][..T::BYTES];
                    T::unpack(s, bytes, b % T::PARTS, &mut block);
                    for (i, acc) in acc.iter_mut().enumerate().take(count) {
                        let at = (first + i) * n_blocks * T::PARTS + b;
                        *acc = T::step(s, &block, self.x, at, *acc);
                    }
                }
                for (i, acc) in acc.iter().enumerate().take(count) {
                    self.args.out.row(first + i)[r] = *acc;
                }
            }
        }
    }
}
