//! One batch row through integer weights: four weight rows together, from far apart in the chunk,
//! so that memory sees four long streams; activations are loaded once for the four.
//!
//! ```text
//! 256-value blocks: bytes of codes x bytes of x -> pairs in i16, times the 16-bit scales of their
//!   sub-blocks -> i32 lanes (two instructions); lanes are summed once a block for four rows.
//!  32-value blocks: two blocks fill 64 bytes; sums of 2 blocks x 4 rows come out of one tree.
//! ```
//! Measured before this in C: one row at a time 68-88 % of the read limit, four neighbouring rows
//! 65-75 %, four far streams 84-100 %, eight rows 30-50 % (registers spill).

use super::super::simd::wide::{Wide, WideKernel};
use super::by_row::lanes;
use super::quantise::Bytes;
use super::stripe::Stripe;
use super::unpack::{Type32, Type256};
use std::marker::PhantomData;

/// Bytes ahead of a stream that are asked for.
const AHEAD: usize = 2048;

/// A type with 256-value blocks, as registers see it.
pub trait Dot256: Type256 {
    /// Where the two halves of each of the four code vectors belong among 256.
    const HALVES: [[usize; 2]; 4];
    /// Its codes.
    fn codes<S: Wide>(s: S, block: &[u8]) -> [S::B; 4];
    /// Its scales and mins, of every 16.
    fn scales(block: &[u8]) -> ([i8; 16], [i8; 16]);
    /// d and dmin (0 if there is none).
    fn factors<S: Wide>(s: S, block: &[u8]) -> [f32; 2];
    /// Four whole rows at once, if the tier has a way of its own.
    #[inline(always)]
    fn four<S: Wide>(_s: S, _rows: [&[u8]; 4], _x: Bytes<'_>) -> Option<[f32; 4]> {
        None
    }
    /// Lanes of T, lanes of M, d, dmin of a block against 256 values of x with their sums.
    #[inline(always)]
    fn dot<S: Wide>(s: S, block: &[u8], x: &[i8; 256], _sums: &[i16; 16]) -> Parts<S> {
        let ([t], [d, dmin]) = (lanes::<S, Self, 1>(s, block, [x]), Self::factors(s, block));
        Parts { t, m: None, d, dmin }
    }
}

/// What a block gives before lanes are summed.
pub struct Parts<S: Wide> {
    /// Lanes of T.
    pub t: S::I,
    /// Lanes of M, if the type has mins.
    pub m: Option<S::I>,
    /// Factor on T.
    pub d: f32,
    /// Factor on M.
    pub dmin: f32,
}

/// A type with 32-value blocks, as registers see it.
pub trait Dot32: Type32 {
    /// Subtracted from every code.
    const OFFSET: u8;
    /// The codes of two blocks.
    fn codes<S: Wide>(s: S, a: &[u8], b: &[u8]) -> S::B;
}

/// Weight rows `[width of out, k]` times one row of x.
pub struct Matvec256<'a, 'b, T> {
    /// Weight rows.
    pub weights: &'a [u8],
    /// Values in a row.
    pub k: usize,
    /// One row.
    pub x: Bytes<'a>,
    /// Row of `out` to write.
    pub row: usize,
    /// Where to.
    pub out: &'a mut Stripe<'b>,
    /// The type.
    pub life: PhantomData<T>,
}

/// The same for 32-value blocks.
pub struct Matvec32<'a, 'b, T>(pub Matvec256<'a, 'b, T>);

impl<T: Dot256> WideKernel for Matvec256<'_, '_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Wide>(self, s: S) {
        let bytes = self.k / 256 * T::BYTES;
        let (weights, x) = (self.weights, self.x);
        let out = self.out.row(self.row);
        for i in 0..out.len() / 4 {
            let q = out.len() / 4;
            let rows = [i, i + q, i + 2 * q, i + 3 * q];
            let four = quarter(weights, bytes, rows);
            let y = match T::four(s, four, x) {
                Some(y) => y,
                None => rows256::<S, T, 4>(s, four, x),
            };
            for (r, y) in rows.into_iter().zip(y) {
                out[r] = y;
            }
        }
        for r in out.len() / 4 * 4..out.len() {
            out[r] = rows256::<S, T, 1>(s, [&weights[r * bytes..(r + 1) * bytes]], x)[0];
        }
    }
}

/// Four rows of `bytes` each.
#[inline(always)]
fn quarter(weights: &[u8], bytes: usize, rows: [usize; 4]) -> [&[u8]; 4] {
    let mut out = [&[][..]; 4];
    for (out, r) in out.iter_mut().zip(rows) {
        *out = &weights[r * bytes..(r + 1) * bytes];
    }
    out
}

/// R rows, the fixed order of f32 operations in each.
#[inline(always)]
fn rows256<S: Wide, T: Dot256, const R: usize>(s: S, rows: [&[u8]; R], x: Bytes<'_>) -> [f32; R] {
    let mut acc = [0.0f32; R];
    let (qs, sums) = (x.qs.as_chunks::<256>().0, x.sums.as_chunks::<16>().0);
    for (b, ((qs, sums), dx)) in qs.iter().zip(sums).zip(x.ds).enumerate() {
        let (mut t, mut m) = ([s.zero_i(); 4], [s.zero_i(); 4]);
        let (mut d, mut dmin, mut mins) = ([0.0; R], [0.0; R], false);
        for r in 0..R {
            let block = &rows[r][b * T::BYTES..(b + 1) * T::BYTES];
            prefetch::<S, T>(s, block);
            let parts = T::dot(s, block, qs, sums);
            (t[r], d[r], dmin[r]) = (parts.t, parts.d, parts.dmin);
            if let Some(lanes) = parts.m {
                (m[r], mins) = (lanes, true);
            }
        }
        let [lo, hi] = s.reduce_halves(t);
        let m = if mins { s.reduce_halves(m)[0] } else { [0; 4] };
        for r in 0..R {
            let mut v = lo[r].wrapping_add(hi[r]) as f32 * d[r];
            if mins {
                v = (-(m[r] as f32)).mul_add(dmin[r], v);
            }
            acc[r] = v.mul_add(*dx, acc[r]);
        }
    }
    acc
}

/// Asks for the lines of the block that lies [`AHEAD`].
#[inline(always)]
fn prefetch<S: Wide, T: Dot256>(s: S, block: &[u8]) {
    for line in 0..T::BYTES.div_ceil(64) {
        s.prefetch(block.as_ptr().wrapping_add(AHEAD + 64 * line));
    }
}

impl<T: Dot32> WideKernel for Matvec32<'_, '_, T> {
    type Out = ();

    #[inline(always)]
    fn run<S: Wide>(self, s: S) {
        let Matvec256 { weights, k, x, row: index, out, .. } = self.0;
        let bytes = k / 32 * T::BYTES;
        let out = out.row(index);
        for i in 0..out.len() / 4 {
            let q = out.len() / 4;
            let rows = [i, i + q, i + 2 * q, i + 3 * q];
            let y = rows32::<S, T, 4>(s, quarter(weights, bytes, rows), x);
            for (r, y) in rows.into_iter().zip(y) {
                out[r] = y;
            }
        }
        for r in out.len() / 4 * 4..out.len() {
            out[r] = rows32::<S, T, 1>(s, [&weights[r * bytes..(r + 1) * bytes]], x)[0];
        }
    }
}

/// R rows, two blocks at a time; an odd last block stands beside zeros.
#[inline(always)]
fn rows32<S: Wide, T: Dot32, const R: usize>(s: S, rows: [&[u8]; R], x: Bytes<'_>) -> [f32; R] {
    let mut acc = [0.0f32; R];
    let (pairs, last) = x.qs.as_chunks::<64>();
    for (p, qs) in pairs.iter().enumerate() {
        pair::<S, T, R>(s, rows, p, (s.load_x(qs), x, 2), &mut acc);
    }
    if let Some(last) = last.first_chunk::<32>() {
        let qs = s.join_x(last, &[0; 32]);
        pair::<S, T, R>(s, rows, pairs.len(), (qs, x, 1), &mut acc);
    }
    acc
}

/// Blocks 2 p and 2 p + 1 (if `count` is 2) of R rows.
#[inline(always)]
fn pair<S: Wide, T: Dot32, const R: usize>(
    s: S,
    rows: [&[u8]; R],
    p: usize,
    (qs, x, count): (S::B, Bytes<'_>, usize),
    acc: &mut [f32; R],
) {
    let mut lanes = [s.zero_i(); 4];
    let mut blocks = [[&[][..]; 2]; R];
    for r in 0..R {
        let at = 2 * p * T::BYTES;
        let a = &rows[r][at..at + T::BYTES];
        let b = if count == 2 { &rows[r][at + T::BYTES..at + 2 * T::BYTES] } else { a };
        s.prefetch(a.as_ptr().wrapping_add(AHEAD));
        lanes[r] = dot_codes::<S, T>(s, T::codes(s, a, b), qs);
        blocks[r] = [a, b];
    }
    let sums = s.reduce_halves(lanes);
    for i in 0..count {
        let (dx, sum) = (x.ds[2 * p + i], f32::from(x.sums[2 * p + i]));
        for r in 0..R {
            let block = blocks[r][i];
            let d = T::d(s, block);
            acc[r] = (sums[i][r] as f32).mul_add(d * dx, acc[r]);
            if T::MIN {
                let m = s.half(u16::from_le_bytes([block[2], block[3]]));
                acc[r] = sum.mul_add(m * dx, acc[r]);
            }
        }
    }
}

#[inline(always)]
fn dot_codes<S: Wide, T: Dot32>(s: S, codes: S::B, x: S::B) -> S::I {
    match T::OFFSET {
        0 => s.dot_offset::<0>(codes, x),
        8 => s.dot_offset::<8>(codes, x),
        16 => s.dot_offset::<16>(codes, x),
        _ => s.dot_offset::<128>(codes, x),
    }
}
