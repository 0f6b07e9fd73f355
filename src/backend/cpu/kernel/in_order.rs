//! One batch row through Q6_K in the order of memory: a register holds 64 codes of a block, and
//! sixteen blocks that follow each other are the lanes of a vector.
//!
//! ```text
//! block: 4 x 64 codes . x, times scales -> 16 lanes; those of 16 blocks are summed into one vector
//! 16 blocks: v = f32(T) d, a block a lane -> values; acc of each of 16 rows, block by block
//! ```
//! A thread reads one stream, line after line, which the hardware follows by itself. A block out
//! of L2 takes 24 cycles on Zen 4 (25 in `lanes`); out of memory the share of the read limit is 89
//! to 93 % at 35 GB/s (81 to 84 in `lanes`), 76 to 87 % at 48 (74 to 76). Asking for lines ahead
//! changes nothing, but touching any line of the next blocks early costs a third: so d is read
//! last. Tried in C: four rows far apart 72 %, four neighbours 30 %; Q4_K and Q5_K, whose headers
//! need more work then, take 26 and 28 cycles.

use super::super::simd::in_order::{InOrder, InOrderKernel};
use super::quantise::Bytes;
use super::registers::{Dot256, bytes};
use super::stripe::Stripe;
use super::unpack::{Q6K, Type256};

/// Blocks of a row that there is room for.
pub const BLOCKS_MAX: usize = 64;
/// Rows whose values are kept, and blocks of a vector.
const ROWS: usize = 16;
/// Bytes of a block.
const BYTES: usize = Q6K::BYTES;

/// Weight rows `[width of out, k]` of Q6_K times one batch row; k is at most 256 [`BLOCKS_MAX`].
pub struct OneRow<'a, 'b> {
    /// Weight rows.
    pub weights: &'a [u8],
    /// Values in a row.
    pub k: usize,
    /// The batch row.
    pub x: Bytes<'a>,
    /// Where to: `[1, weight rows]`.
    pub out: &'a mut Stripe<'b>,
}

/// Lines of a cache.
#[repr(align(64))]
struct Lines([[i32; 16]; BLOCKS_MAX]);

/// A batch row's blocks and their scaled sums.
#[derive(Clone, Copy)]
struct Row<'a> {
    qs: &'a [[i8; 256]],
    /// Sixteen pairs of words: what meets the scales of a block, twice.
    less: &'a [[i32; 16]],
}

impl InOrderKernel for OneRow<'_, '_> {
    #[inline(always)]
    fn run<S: InOrder>(self, s: S) {
        let (n, width) = (self.k / 256, self.out.width());
        assert!(n > 0 && n <= BLOCKS_MAX && self.weights.len() == width * n * BYTES);
        let (qs, sums) = (self.x.qs.as_chunks().0, self.x.sums.as_chunks().0);
        let mut less = Lines([[0; 16]; BLOCKS_MAX]);
        for (less, sums) in less.0.iter_mut().zip(&sums[..n]) {
            *less = half_offsets(sums);
        }
        let (x, ds) = (Row { qs: &qs[..n], less: &less.0[..n] }, &self.x.ds[..n]);
        let mut values = [[0.0; 16]; BLOCKS_MAX];
        let tiles = self.weights.chunks(ROWS * n * BYTES);
        for (tile, out) in tiles.zip(self.out.row(0).chunks_mut(ROWS)) {
            let (mut groups, mut at) = (tile.chunks_exact(16 * BYTES), 0);
            for (group, values) in groups.by_ref().zip(&mut values) {
                *values = sixteen::<S>(s, group, 16, x, at);
                at = (at + 16) % n;
            }
            let rest = groups.remainder();
            if !rest.is_empty() {
                values[tile.len() / BYTES / 16] = sixteen::<S>(s, rest, rest.len() / BYTES, x, at);
            }
            for (out, v) in out.iter_mut().zip(values.as_flattened().chunks_exact(n)) {
                let mut acc = 0.0f32;
                for (v, dx) in v.iter().zip(ds) {
                    acc = v.mul_add(*dx, acc);
                }
                *out = acc;
            }
        }
    }
}

/// 32 times a sum does not fit a word: 16 times, twice.
fn half_offsets(sums: &[i16; 16]) -> [i32; 16] {
    let mut out = [0; 16];
    for (i, out) in out.iter_mut().enumerate() {
        let at = 2 * i % 16;
        let [a, b] = [sums[at], sums[at + 1]].map(|sum| -16 * sum);
        *out = i32::from(b) << 16 | i32::from(a.cast_unsigned());
    }
    out
}

/// v of sixteen blocks, or of fewer, then the last again; the first meets block `at` of x.
#[inline(always)]
fn sixteen<S: InOrder>(s: S, group: &[u8], count: usize, x: Row<'_>, mut at: usize) -> [f32; 16] {
    let mut quarters = [s.zero_i(); 4];
    for quarter in 0..4 {
        let mut fours = [s.zero_i(); 4];
        for i in 0..4 {
            let block = &group[(4 * quarter + i).min(count - 1) * BYTES..][..BYTES];
            fours[i] = total(s, block, &x.qs[at], &x.less[at]);
            at = if at + 1 == x.qs.len() { 0 } else { at + 1 };
        }
        quarters[quarter] = s.sum_quads(fours);
    }
    let mut d = [0; 32];
    for (lane, d) in d.as_chunks_mut().0.iter_mut().enumerate() {
        *d = *bytes::<2>(&group[lane.min(count - 1) * BYTES..], BYTES - 2);
    }
    let mut values = [0.0; 16];
    s.store(s.mul(s.to_f(s.sum_quarters(quarters)), s.load_f16(&d)), &mut values);
    values
}

/// Lanes of T of a block.
#[inline(always)]
fn total<S: InOrder>(s: S, block: &[u8], x: &[i8; 256], less: &[i32; 16]) -> S::I {
    let codes = Q6K::codes(s, block);
    let (twice, scales) = s.scales16(bytes(block, 192));
    let mut sum = s.dot_words(s.zero_i(), twice, s.load_i(less));
    for (i, x) in x.as_chunks().0.iter().enumerate() {
        sum = s.dot_scaled_b(sum, codes[i], s.load_x(x), scales[i]);
    }
    sum
}
