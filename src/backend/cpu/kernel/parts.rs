//! Types whose blocks hold several parts of 32 values (NVFP4, Q2_0, Q1_0) in every form: one by
//! one, in registers, with sixteen weight rows in lanes. Layouts stand in `quant`.
//!
//! Cycles a block and core out of L2 on Zen 4 for 1, 2, 4, 8 rows, as in `lanes`: NVFP4 5.7, 7.1,
//! 10.1, 16.7 (two blocks of MXFP4: 6.0, 7.6, 8.8, 13.0); Q2_0 3.7, 5.1, 7.7, 14.8; Q1_0, whose
//! blocks have 128 values, 6.4, 8.8, 13.6, 26.

use super::super::simd::Simd;
use super::super::simd::wide::{Wide, word_pair};
use super::lane_types::{eight, halves};
use super::lanes::{Blocks, ROUND, Tile};
use super::quantise::Bytes;
use super::registers::{Dot32, bytes};
use super::unpack::{Type32, half_at};
use super::unpack_grid::FP4_CODES;
use crate::quant::fp4::{E2M1_DOUBLED, ue4m3_half};
use std::marker::PhantomData;

/// A type of several parts in lanes.
pub trait Parts: Dot32 {
    /// Whether quads want other activations than four that follow each other: byte i of quad q of
    /// sixteen is 4 i + q.
    const TURNED: bool = false;

    /// Words of a block; sixteen bytes behind d are four, twice.
    ///
    /// # Safety
    /// Each row has a block.
    #[inline(always)]
    unsafe fn words<S: Wide>(s: S, blocks: &Blocks) -> [S::B; 8] {
        // SAFETY: sixteen bytes of codes lie behind d.
        let [a, b, c, d] = unsafe { blocks.words(s, 2) };
        [a, b, c, d, a, b, c, d]
    }
    /// Codes of a part, four of each row.
    fn quads<S: Wide>(s: S, words: &[S::B; 8], part: usize) -> [S::B; 8];
    /// Factors: of each half of two parts, or one for all.
    ///
    /// # Safety
    /// Each row has a block.
    #[inline(always)]
    unsafe fn factors<S: Wide>(s: S, blocks: &Blocks) -> [S::F; 4] {
        // SAFETY: blocks begin with it.
        [s.mul(s.load_f16(&unsafe { halves(blocks, 0) }), s.splat(0.125)); 4]
    }
}

/// Halves of unsigned E4M3 numbers.
static UE4M3_HALVES: [f32; 256] = {
    let (mut out, mut x) = ([0.0; 256], 0);
    while x < 256 {
        out[x] = ue4m3_half(x as u8);
        x += 1;
    }
    out
};

/// See [`crate::quant::fp4::Nvfp4`].
pub struct NVFP4;

impl Type32 for NVFP4 {
    const BYTES: usize = 36;
    const PARTS: usize = 2;
    const HALVES: bool = true;
    const NAME: &'static str = "nvfp4";
    #[inline(always)]
    fn d_and_m<S: Simd>(_: S, b: &[u8], part: usize) -> [f32; 2] {
        [0, 1].map(|half| UE4M3_HALVES[usize::from(b[2 * part + half])])
    }
    #[inline(always)]
    fn unpack(b: &[u8], part: usize, codes: &mut [i8; 32]) {
        for (i, code) in codes.iter_mut().enumerate() {
            let nibble = b[4 + 16 * part + i / 16 * 8 + i % 8] >> (i % 16 / 8 * 4) & 15;
            *code = E2M1_DOUBLED[usize::from(nibble)];
        }
    }
}

impl Dot32 for NVFP4 {
    const OFFSET: u8 = 16;
    #[inline(always)]
    fn codes<S: Wide>(s: S, blocks: &[u8], pair: usize) -> S::B {
        let mut words = [0; 8];
        for (i, words) in words.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let word = u64::from_le_bytes(*bytes(blocks, 36 * pair + 4 + 8 * i));
            *words = [word, word >> 4];
        }
        s.look_up(&FP4_CODES, s.and_b(s.join_words(words), s.splat_b(15)))
    }
}

impl Parts for NVFP4 {
    #[inline(always)]
    unsafe fn words<S: Wide>(s: S, blocks: &Blocks) -> [S::B; 8] {
        // SAFETY: 32 bytes of nibbles lie behind four.
        unsafe { eight(s, blocks, 4) }
    }
    #[inline(always)]
    fn quads<S: Wide>(s: S, words: &[S::B; 8], part: usize) -> [S::B; 8] {
        let mut codes = [words[0]; 8];
        for i in 0..4 {
            let (w, at) = (words[4 * part + i], i / 2 * 4 + i % 2);
            codes[at] = s.look_up_low(&FP4_CODES, w);
            codes[at + 2] = s.look_up_low(&FP4_CODES, s.shr_b::<4>(w));
        }
        codes
    }
    /// E4M3 in the upper byte of a word, shifted by one, is an f16 that is 256 times too small.
    #[inline(always)]
    unsafe fn factors<S: Wide>(s: S, blocks: &Blocks) -> [S::F; 4] {
        let mut scales = [0; 64];
        for (out, row) in scales.as_chunks_mut().0.iter_mut().zip(blocks.rows) {
            // SAFETY: a block begins with them.
            *out = unsafe { row.add(blocks.at).cast::<[u8; 4]>().read() };
        }
        let (all, top) = (s.load_b(&scales), s.splat_b(128));
        let scales = s.and_b(all, s.splat_b(127));
        // 127 is 0 (255 is not).
        let nan = s.and_b(s.add_b(scales, s.splat_b(1)), s.and_b(s.flip_sign(all), top));
        let scales = s.add_b(s.sub_b(scales, nan), s.shr_b::<7>(nan));
        let even = s.shl_b::<7>(s.and_b(scales, s.splat_quad(&[255, 0, 255, 0])));
        let odd = s.and_b(s.shr_b::<1>(scales), s.splat_quad(&[128, 127, 128, 127]));
        let times = s.splat(128.0);
        [
            s.mul(s.half_of::<false>(even), times),
            s.mul(s.half_of::<false>(odd), times),
            s.mul(s.half_of::<true>(even), times),
            s.mul(s.half_of::<true>(odd), times),
        ]
    }
}

/// See [`crate::quant::ternary::Q2_0`]; codes are eight times too large, d an eighth.
pub struct Q20;

impl Type32 for Q20 {
    const BYTES: usize = 18;
    const PARTS: usize = 2;
    const NAME: &'static str = "q2_0";
    #[inline(always)]
    fn d_and_m<S: Simd>(s: S, b: &[u8], _: usize) -> [f32; 2] {
        [half_at(s, b, 0) * 0.125, 0.0]
    }
    #[inline(always)]
    fn unpack(b: &[u8], part: usize, codes: &mut [i8; 32]) {
        for (i, code) in codes.iter_mut().enumerate() {
            let two = b[2 + 8 * part + i / 4] >> (i % 4 * 2) & 3;
            *code = 8 * two.cast_signed() - 8;
        }
    }
}

impl Dot32 for Q20 {
    const OFFSET: u8 = 8;
    #[inline(always)]
    fn codes<S: Wide>(s: S, blocks: &[u8], pair: usize) -> S::B {
        let mut words = [0; 8];
        for (i, word) in words.iter_mut().enumerate() {
            // Sixteen bits to bytes 0 and 4, then to four bytes, then to eight.
            let x = u64::from(u16::from_le_bytes(*bytes(blocks, 18 * pair + 2 + 2 * i)));
            let x = (x | x << 24) & 0x0000_00ff_0000_00ff;
            let x = (x | x << 12) & 0x000f_000f_000f_000f;
            *word = (x | x << 6) & 0x0303_0303_0303_0303;
        }
        s.shl_b::<3>(s.join_words(words))
    }
}

impl Parts for Q20 {
    const TURNED: bool = true;
    #[inline(always)]
    fn quads<S: Wide>(s: S, words: &[S::B; 8], part: usize) -> [S::B; 8] {
        let (mask, mut codes) = (s.splat_b(24), [words[0]; 8]);
        for i in 0..2 {
            let w = words[2 * part + i];
            codes[4 * i] = s.and_b(s.shl_b::<3>(w), mask);
            codes[4 * i + 1] = s.and_b(s.shl_b::<1>(w), mask);
            codes[4 * i + 2] = s.and_b(s.shr_b::<1>(w), mask);
            codes[4 * i + 3] = s.and_b(s.shr_b::<3>(w), mask);
        }
        codes
    }
}

/// See [`crate::quant::ternary::Q1_0`]; codes are eight times too large, d an eighth.
pub struct Q10;

impl Type32 for Q10 {
    const BYTES: usize = 18;
    const PARTS: usize = 4;
    const NAME: &'static str = "q1_0";
    #[inline(always)]
    fn d_and_m<S: Simd>(s: S, b: &[u8], _: usize) -> [f32; 2] {
        [half_at(s, b, 0) * 0.125, 0.0]
    }
    #[inline(always)]
    fn unpack(b: &[u8], part: usize, codes: &mut [i8; 32]) {
        for (i, code) in codes.iter_mut().enumerate() {
            *code = if b[2 + 4 * part + i / 8] >> (i % 8) & 1 == 1 { 8 } else { -8 };
        }
    }
}

impl Dot32 for Q10 {
    const OFFSET: u8 = 8;
    #[inline(always)]
    fn codes<S: Wide>(s: S, blocks: &[u8], pair: usize) -> S::B {
        let bits = bytes(blocks, pair / 2 * 18 + 2 + pair % 2 * 8);
        s.and_b(s.spread_bits(u64::from_le_bytes(*bits)), s.splat_b(16))
    }
}

impl Parts for Q10 {
    #[inline(always)]
    fn quads<S: Wide>(s: S, words: &[S::B; 8], part: usize) -> [S::B; 8] {
        let mut codes = [words[part]; 8];
        for (quad, codes) in codes.iter_mut().enumerate() {
            *codes = s.and_b(s.fifth_bits(*codes, quad), s.splat_b(16));
        }
        codes
    }
}

/// Tiles of a type of several parts.
pub struct ByParts<T>(PhantomData<T>);

impl<T: Parts> Tile for ByParts<T> {
    const BYTES: usize = T::BYTES;
    const BLOCK: usize = 32 * T::PARTS;

    #[inline(always)]
    unsafe fn run<S: Wide, const N: usize>(
        s: S,
        mut blocks: Blocks,
        n_blocks: usize,
        (x, at): (Bytes<'_>, [usize; N]),
    ) -> [S::F; N] {
        let mut acc = [s.splat(0.0); N];
        for b in 0..n_blocks {
            // SAFETY: block b of each row is readable, by the caller's promise.
            let (words, factors) = unsafe { (T::words(s, &blocks), T::factors(s, &blocks)) };
            let mut first = at;
            for first in &mut first {
                *first = (*first + b) * T::PARTS;
            }
            part::<S, T, N, 0>(s, (&words, &factors), (x, first), &mut acc);
            part::<S, T, N, 1>(s, (&words, &factors), (x, first), &mut acc);
            if T::PARTS > 2 {
                part::<S, T, N, 2>(s, (&words, &factors), (x, first), &mut acc);
                part::<S, T, N, 3>(s, (&words, &factors), (x, first), &mut acc);
            }
            blocks.prefetch(s, b % ROUND, ROUND * T::BYTES);
            blocks.at += T::BYTES;
        }
        acc
    }
}

/// Part P of sixteen blocks with N batch rows.
#[inline(always)]
fn part<S: Wide, T: Parts, const N: usize, const P: usize>(
    s: S,
    (words, factors): (&[S::B; 8], &[S::F; 4]),
    (x, at): (Bytes<'_>, [usize; N]),
    acc: &mut [S::F; N],
) {
    let codes = T::quads(s, words, P);
    let (all, mut turned, mut xs) = (x.qs.as_chunks::<32>().0, [[0; 32]; N], [&[0; 32]; N]);
    for n in 0..N {
        xs[n] = &all[at[n] + P];
        if T::TURNED {
            turned[n] = turn(xs[n]);
        }
    }
    let xs = if T::TURNED { std::array::from_fn(|n| &turned[n]) } else { xs };
    let mut dx = [acc[0]; N];
    for n in 0..N {
        dx[n] = s.splat(x.ds[at[n] + P]);
    }
    if T::HALVES {
        let mut v = [acc[0]; N];
        let mut sums = starts::<S, T, N, 0>(s, (x, at), P);
        quads::<S, N, 0, 1>(s, &codes, xs, &mut sums);
        quads::<S, N, 2, 3>(s, &codes, xs, &mut sums);
        for n in 0..N {
            v[n] = s.mul(s.to_f(sums[n]), factors[2 * P % 4]);
        }
        sums = starts::<S, T, N, 1>(s, (x, at), P);
        quads::<S, N, 4, 5>(s, &codes, xs, &mut sums);
        quads::<S, N, 6, 7>(s, &codes, xs, &mut sums);
        for n in 0..N {
            v[n] = s.fma(s.to_f(sums[n]), factors[(2 * P + 1) % 4], v[n]);
            acc[n] = s.fma(v[n], dx[n], acc[n]);
        }
        return;
    }
    let (mut sums, mut others) = ([s.zero_i(); N], [s.zero_i(); N]);
    for n in 0..N {
        sums[n] = s.splat_i(x.starts[at[n] + P]);
    }
    // A single row would wait for its one sum.
    let second = if N == 1 { &mut others } else { &mut sums };
    quads::<S, N, 0, 1>(s, &codes, xs, second);
    quads::<S, N, 2, 3>(s, &codes, xs, second);
    quads::<S, N, 4, 5>(s, &codes, xs, &mut sums);
    quads::<S, N, 6, 7>(s, &codes, xs, &mut sums);
    for n in 0..N {
        let sum = if N == 1 { s.add_i(sums[n], others[n]) } else { sums[n] };
        acc[n] = s.fma(s.to_f(sum), s.mul(factors[0], dx[n]), acc[n]);
    }
}

/// Minus the offset times the sums of x of half H of a part, for codes that are so much too large.
#[inline(always)]
fn starts<S: Wide, T: Parts, const N: usize, const H: usize>(
    s: S,
    (x, at): (Bytes<'_>, [usize; N]),
    part: usize,
) -> [S::I; N] {
    let mut times = [0; 16];
    times[H] = -i16::from(T::OFFSET);
    let (mut out, times) = ([s.zero_i(); N], s.splat_words(&times, 0));
    for n in 0..N {
        let pair = s.splat_i(word_pair(&x.sums[2 * (at[n] + part)..], 0));
        out[n] = s.dot_words(out[n], pair, times);
    }
    out
}

/// Activations in the order of [`Parts::TURNED`].
#[inline(always)]
fn turn(x: &[i8; 32]) -> [i8; 32] {
    let mut out = [0; 32];
    for i in 0..32 {
        out[i] = x[i / 16 * 16 + i % 4 * 4 + i % 16 / 4];
    }
    out
}

/// Quads A and B of a part.
#[inline(always)]
fn quads<S: Wide, const N: usize, const A: usize, const B: usize>(
    s: S,
    codes: &[S::B; 8],
    xs: [&[i8; 32]; N],
    sums: &mut [S::I; N],
) {
    for n in 0..N {
        sums[n] = s.dot_x::<0, A>(sums[n], codes[A], xs[n]);
    }
    for n in 0..N {
        sums[n] = s.dot_x::<0, B>(sums[n], codes[B], xs[n]);
    }
}
