//! Integer tensor types whose codes stand for values in a table: vectors out of a grid (IQ1 to
//! IQ3), unevenly spaced values (IQ4), four-bit floats (MXFP4), ternary digits, plain bytes (Q8_K).
//! Which bits are what stands in `quant`.

use super::super::simd::Simd;
use super::unpack::{Block256, Type32, Type256, half_at};
use crate::quant::fp4::{E2M1_DOUBLED, e8m0_half};
use crate::quant::grids;
use crate::quant::iq::{IQ4_VALUES, Iq1M};
use std::marker::PhantomData;
use zerocopy::FromBytes;

/// A type with 256-value blocks whose codes are looked up, eight values at a time.
pub trait Grid: 'static {
    /// Bytes of a block.
    const BYTES: usize;
    /// Whether values have signs of their own; else 16 is subtracted from each.
    const SIGNED: bool;
    /// Values under one scale.
    const SUB: usize;
    /// Name in kernels' names.
    const NAME: &'static str;
    /// Sixty-four values from 64 `part` on, and the bits of the negative ones.
    fn codes(b: &[u8], part: usize) -> ([u64; 8], u64);
    /// Of every 16.
    fn scales(b: &[u8]) -> [i8; 16];
    /// Factor on scales.
    fn d<S: Simd>(s: S, b: &[u8]) -> f32;
}

/// A [`Grid`] as any other type.
pub struct Gridded<T>(PhantomData<T>);

impl<T: Grid> Type256 for Gridded<T> {
    const BYTES: usize = T::BYTES;
    const OFFSET: i32 = if T::SIGNED { 64 } else { 16 };
    const MINS: bool = false;
    const SUB: usize = T::SUB;
    const NAME: &'static str = T::NAME;
    #[inline(always)]
    fn unpack<S: Simd>(s: S, b: &[u8], out: &mut Block256) {
        out.d = T::d(s, b);
        out.scales = T::scales(b).map(i16::from);
        for (part, out) in out.codes.chunks_exact_mut(64).enumerate() {
            let (words, signs) = T::codes(b, part);
            for (i, code) in out.iter_mut().enumerate() {
                let value = (words[i / 8] >> (8 * (i % 8))) as u8;
                *code = match (T::SIGNED, signs >> i & 1) {
                    (false, _) => value,
                    (true, 0) => 64 + value,
                    (true, _) => 64 - value,
                };
            }
        }
    }
}

#[inline(always)]
fn at<const N: usize>(b: &[u8], at: usize) -> &[u8; N] {
    b[at..].first_chunk().unwrap_or(&[0; N])
}

/// Nibbles, low ones first, as 1 + 2 x nibble, each for `16 / N` sixteens.
#[inline(always)]
fn odd_scales<const N: usize>(nibbles: &[u8; N]) -> [i8; 16] {
    std::array::from_fn(|i| {
        let i = i * 2 * N / 16;
        (1 + 2 * (nibbles[i / 2] >> (i % 2 * 4) & 15)).cast_signed()
    })
}

/// Two vectors of 4 as one of 8.
#[inline(always)]
fn pair(a: [u8; 4], b: [u8; 4]) -> u64 {
    u64::from(u32::from_le_bytes(a)) | u64::from(u32::from_le_bytes(b)) << 32
}

/// Eight signs a byte from seven: the eighth makes the number of minuses even.
#[inline(always)]
fn even_signs(sevens: u64) -> u64 {
    let p = sevens ^ (sevens >> 4);
    let p = p ^ (p >> 2);
    sevens | ((p ^ (p >> 1)) & 0x0101_0101_0101_0101) << 7
}

/// Four times seven bits of signs from each of two words.
#[inline(always)]
fn signs_28(a: u32, b: u32) -> u64 {
    let w = u64::from(a) | u64::from(b) << 32;
    let part = |n: u32| (w & (0x0000_007f_0000_007f << (7 * n))) << n;
    even_signs(part(0) | part(1) | part(2) | part(3))
}

/// See [`crate::quant::iq::Iq2Xxs`].
pub struct IQ2XXS;
impl Grid for IQ2XXS {
    const BYTES: usize = 66;
    const SIGNED: bool = true;
    const SUB: usize = 32;
    const NAME: &'static str = "iq2_xxs";
    #[inline(always)]
    fn codes(b: &[u8], part: usize) -> ([u64; 8], u64) {
        let [x, y] = [0, 8].map(|half| at::<8>(b, 2 + 16 * part + half));
        let words = std::array::from_fn(|i| {
            let code = if i < 4 { x[i] } else { y[i - 4] };
            u64::from_le_bytes(grids::IQ2_XXS[usize::from(code)])
        });
        let [low, high] = [x, y].map(|group| u32::from_le_bytes(*at(group, 4)));
        (words, signs_28(low, high))
    }
    #[inline(always)]
    fn scales(b: &[u8]) -> [i8; 16] {
        std::array::from_fn(|i| (1 + 2 * (b[2 + 8 * (i / 2) + 7] >> 4)).cast_signed())
    }
    #[inline(always)]
    fn d<S: Simd>(s: S, b: &[u8]) -> f32 {
        half_at(s, b, 0) * 0.125
    }
}

/// See [`crate::quant::iq::Iq2Xs`].
pub struct IQ2XS;
impl Grid for IQ2XS {
    const BYTES: usize = 74;
    const SIGNED: bool = true;
    const SUB: usize = 16;
    const NAME: &'static str = "iq2_xs";
    #[inline(always)]
    fn codes(b: &[u8], part: usize) -> ([u64; 8], u64) {
        let codes: &[u8; 16] = at(b, 2 + 16 * part);
        let (mut words, mut signs) = ([0; 8], 0);
        for i in 0..8 {
            let code = u16::from_le_bytes([codes[2 * i], codes[2 * i + 1]]);
            words[i] = u64::from_le_bytes(grids::IQ2_XS[usize::from(code & 511)]);
            signs |= u64::from(code >> 9) << (8 * i);
        }
        (words, even_signs(signs))
    }
    #[inline(always)]
    fn scales(b: &[u8]) -> [i8; 16] {
        odd_scales::<8>(at(b, 66))
    }
    #[inline(always)]
    fn d<S: Simd>(s: S, b: &[u8]) -> f32 {
        half_at(s, b, 0) * 0.125
    }
}

/// See [`crate::quant::iq::Iq2S`].
pub struct IQ2S;
impl Grid for IQ2S {
    const BYTES: usize = 82;
    const SIGNED: bool = true;
    const SUB: usize = 16;
    const NAME: &'static str = "iq2_s";
    #[inline(always)]
    fn codes(b: &[u8], part: usize) -> ([u64; 8], u64) {
        let (codes, high) = (at::<8>(b, 2 + 8 * part), at::<2>(b, 66 + 2 * part));
        let words = std::array::from_fn(|i| {
            let high = usize::from(high[i / 4] >> (i % 4 * 2) & 3);
            u64::from_le_bytes(grids::IQ2_S[usize::from(codes[i]) | high << 8])
        });
        (words, u64::from_le_bytes(*at(b, 34 + 8 * part)))
    }
    #[inline(always)]
    fn scales(b: &[u8]) -> [i8; 16] {
        odd_scales::<8>(at(b, 74))
    }
    #[inline(always)]
    fn d<S: Simd>(s: S, b: &[u8]) -> f32 {
        half_at(s, b, 0) * 0.125
    }
}

/// See [`crate::quant::iq::Iq3Xxs`].
pub struct IQ3XXS;
impl Grid for IQ3XXS {
    const BYTES: usize = 98;
    const SIGNED: bool = true;
    const SUB: usize = 32;
    const NAME: &'static str = "iq3_xxs";
    #[inline(always)]
    fn codes(b: &[u8], part: usize) -> ([u64; 8], u64) {
        let codes: &[u8; 16] = at(b, 2 + 16 * part);
        let grid = |i: usize| grids::IQ3_XXS[usize::from(codes[i])];
        let words = std::array::from_fn(|i| pair(grid(2 * i), grid(2 * i + 1)));
        let [low, high] = [66, 70].map(|from| u32::from_le_bytes(*at(b, from + 8 * part)));
        (words, signs_28(low, high))
    }
    #[inline(always)]
    fn scales(b: &[u8]) -> [i8; 16] {
        std::array::from_fn(|i| (1 + 2 * (b[66 + 4 * (i / 2) + 3] >> 4)).cast_signed())
    }
    #[inline(always)]
    fn d<S: Simd>(s: S, b: &[u8]) -> f32 {
        half_at(s, b, 0) * 0.25
    }
}

/// See [`crate::quant::iq::Iq3S`].
pub struct IQ3S;
impl Grid for IQ3S {
    const BYTES: usize = 110;
    const SIGNED: bool = true;
    const SUB: usize = 32;
    const NAME: &'static str = "iq3_s";
    #[inline(always)]
    fn codes(b: &[u8], part: usize) -> ([u64; 8], u64) {
        let (codes, high) = (at::<16>(b, 2 + 16 * part), at::<2>(b, 66 + 2 * part));
        let high = usize::from(u16::from_le_bytes(*high));
        let grid = |i: usize| grids::IQ3_S[usize::from(codes[i]) | (high >> i & 1) << 8];
        let words = std::array::from_fn(|i| pair(grid(2 * i), grid(2 * i + 1)));
        (words, u64::from_le_bytes(*at(b, 74 + 8 * part)))
    }
    #[inline(always)]
    fn scales(b: &[u8]) -> [i8; 16] {
        odd_scales::<4>(at(b, 106))
    }
    #[inline(always)]
    fn d<S: Simd>(s: S, b: &[u8]) -> f32 {
        half_at(s, b, 0)
    }
}

/// Eight values of IQ1, 8 x digit - 8 +- 1, with 16 added.
#[inline(always)]
fn shifted(code: usize, minus: bool) -> u64 {
    let delta = if minus { 0x0707_0707_0707_0707 } else { 0x0909_0909_0909_0909 };
    (u64::from_le_bytes(grids::IQ1[code & 2047]) << 3) + delta
}

/// See [`crate::quant::iq::Iq1S`].
pub struct IQ1S;
impl Grid for IQ1S {
    const BYTES: usize = 50;
    const SIGNED: bool = false;
    const SUB: usize = 32;
    const NAME: &'static str = "iq1_s";
    #[inline(always)]
    fn codes(b: &[u8], part: usize) -> ([u64; 8], u64) {
        let codes: &[u8; 8] = at(b, 2 + 8 * part);
        let high = [0, 2].map(|half| u16::from_le_bytes(*at(b, 34 + 4 * part + half)));
        let words = std::array::from_fn(|i| {
            let upper = usize::from(high[i / 4] >> (i % 4 * 3) & 7);
            shifted(usize::from(codes[i]) | upper << 8, high[i / 4] >> 15 == 1)
        });
        (words, 0)
    }
    #[inline(always)]
    fn scales(b: &[u8]) -> [i8; 16] {
        std::array::from_fn(|i| (1 + 2 * (b[34 + 2 * (i / 2) + 1] >> 4 & 7)).cast_signed())
    }
    #[inline(always)]
    fn d<S: Simd>(s: S, b: &[u8]) -> f32 {
        half_at(s, b, 0) * 0.125
    }
}

/// See [`crate::quant::iq::Iq1M`].
pub struct IQ1M;
impl Grid for IQ1M {
    const BYTES: usize = 56;
    const SIGNED: bool = false;
    const SUB: usize = 16;
    const NAME: &'static str = "iq1_m";
    #[inline(always)]
    fn codes(b: &[u8], part: usize) -> ([u64; 8], u64) {
        let (codes, high) = (at::<8>(b, 8 * part), at::<4>(b, 32 + 4 * part));
        let words = std::array::from_fn(|i| {
            let high = high[i / 2] >> (i % 2 * 4);
            shifted(usize::from(codes[i]) | usize::from(high & 7) << 8, high & 8 != 0)
        });
        (words, 0)
    }
    #[inline(always)]
    fn scales(b: &[u8]) -> [i8; 16] {
        let words = u64::from_le_bytes(*at(b, 48));
        std::array::from_fn(|i| (1 + 2 * (words >> (16 * (i / 4) + 3 * (i % 4)) & 7)) as i8)
    }
    #[inline(always)]
    fn d<S: Simd>(_: S, b: &[u8]) -> f32 {
        Iq1M::ref_from_bytes(b).map_or(f32::NAN, Iq1M::scale) * 0.125
    }
}

/// 3^k for digit k of each value of TQ1_0.
const POWERS: [[u8; 64]; 4] = {
    const THREE: [u8; 5] = [1, 3, 9, 27, 81];
    let (mut out, mut i) = ([[0; 64]; 4], 0);
    while i < 256 {
        out[i / 64][i % 64] = THREE[match i {
            0..160 => i / 32,
            160..240 => (i - 160) / 16,
            _ => (i - 240) / 4,
        }];
        i += 1;
    }
    out
};

/// See [`crate::quant::ternary::Tq1_0`]; 15 more than digits.
pub struct TQ10;
impl Grid for TQ10 {
    const BYTES: usize = 54;
    const SIGNED: bool = false;
    const SUB: usize = 256;
    const NAME: &'static str = "tq1_0";
    #[inline(always)]
    fn codes(b: &[u8], part: usize) -> ([u64; 8], u64) {
        let (long, short, rest) = (at::<32>(b, 0), at::<16>(b, 32), at::<4>(b, 48));
        let mut codes = [0; 64];
        let (low, high) = codes.split_at_mut(32);
        match part {
            0 | 1 => {
                low.copy_from_slice(long);
                high.copy_from_slice(long);
            }
            2 => {
                low.copy_from_slice(long);
                high.as_chunks_mut().0.fill(*short);
            }
            _ => {
                low.as_chunks_mut().0.fill(*short);
                high[..16].copy_from_slice(short);
                high[16..].as_chunks_mut().0.fill(*rest);
            }
        }
        for (code, power) in codes.iter_mut().zip(&POWERS[part % 4]) {
            *code = 15 + ((u16::from(code.wrapping_mul(*power)) * 3) >> 8) as u8;
        }
        (zerocopy::transmute!(codes), 0)
    }
    #[inline(always)]
    fn scales(_: &[u8]) -> [i8; 16] {
        [1; 16]
    }
    #[inline(always)]
    fn d<S: Simd>(s: S, b: &[u8]) -> f32 {
        half_at(s, b, 52)
    }
}

/// See [`crate::quant::ternary::Tq2_0`].
pub struct TQ20;
impl Type256 for TQ20 {
    const BYTES: usize = 66;
    const OFFSET: i32 = 1;
    const MINS: bool = false;
    const SUB: usize = 256;
    const NAME: &'static str = "tq2_0";
    #[inline(always)]
    fn unpack<S: Simd>(s: S, b: &[u8], out: &mut Block256) {
        (out.d, out.scales) = (half_at(s, b, 64), [1; 16]);
        for (i, code) in out.codes.iter_mut().enumerate() {
            *code = b[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        }
    }
}

/// A byte each.
pub struct Q8K;
impl Type256 for Q8K {
    const BYTES: usize = 292;
    const OFFSET: i32 = 128;
    const MINS: bool = false;
    const SUB: usize = 256;
    const NAME: &'static str = "q8_k";
    #[inline(always)]
    fn unpack<S: Simd>(_: S, b: &[u8], out: &mut Block256) {
        (out.d, out.scales) = (f32::from_le_bytes(*at(b, 0)), [1; 16]);
        for (code, q) in out.codes.iter_mut().zip(&b[4..260]) {
            *code = q ^ 128;
        }
    }
}

/// The values of IQ4 with 128 added.
pub const IQ4_CODES: [u8; 16] = plus::<128>(IQ4_VALUES);
/// The doubled values of MXFP4 with 16 added.
pub const FP4_CODES: [u8; 16] = plus::<16>(E2M1_DOUBLED);

const fn plus<const N: i16>(values: [i8; 16]) -> [u8; 16] {
    let (mut out, mut i) = ([0; 16], 0);
    while i < 16 {
        out[i] = (values[i] as i16 + N) as u8;
        i += 1;
    }
    out
}

/// See [`crate::quant::iq::Iq4Xs`].
pub struct IQ4XS;
impl Type256 for IQ4XS {
    const BYTES: usize = 136;
    const OFFSET: i32 = 128;
    const MINS: bool = false;
    const SUB: usize = 32;
    const NAME: &'static str = "iq4_xs";
    #[inline(always)]
    fn unpack<S: Simd>(s: S, b: &[u8], out: &mut Block256) {
        out.d = half_at(s, b, 0);
        out.scales = iq4_scales(b).map(i16::from);
        for (i, code) in out.codes.iter_mut().enumerate() {
            let nibble = b[8 + i / 32 * 16 + i % 16] >> (i % 32 / 16 * 4) & 15;
            *code = IQ4_CODES[usize::from(nibble)];
        }
    }
}

/// The scales of a block of IQ4_XS, of every 16: eight numbers of 6 bits, 32 subtracted.
#[inline(always)]
pub fn iq4_scales(b: &[u8]) -> [i8; 16] {
    let spread = |x: u64, by: u32, mask: u64| (x | x << by) & mask;
    let high = u64::from(u16::from_le_bytes(*at(b, 2)));
    let high = spread(spread(high, 24, 0x0000_00ff_0000_00ff), 12, 0x000f_000f_000f_000f);
    let high = spread(high, 6, 0x0303_0303_0303_0303);
    let low = u64::from(u32::from_le_bytes(*at(b, 4)));
    let low = spread(spread(low, 16, 0x0000_ffff_0000_ffff), 8, 0x00ff_00ff_00ff_00ff);
    let low = spread(low, 4, 0x0f0f_0f0f_0f0f_0f0f);
    // Bytes minus 32, without a borrow from one to the next.
    let six = low | high << 4;
    let scales = ((six | 0x8080_8080_8080_8080) - 0x2020_2020_2020_2020) ^ 0x8080_8080_8080_8080;
    let scales = scales.to_le_bytes();
    std::array::from_fn(|i| scales[i / 2].cast_signed())
}

/// Nibbles through a table of values with `offset` added.
#[inline(always)]
fn looked_up(qs: &[u8], (table, offset): (&[u8; 16], u8), out: &mut [i8; 32]) {
    for (i, code) in out.iter_mut().enumerate() {
        let nibble = qs[i % 16] >> (i / 16 * 4) & 15;
        *code = table[usize::from(nibble)].wrapping_sub(offset).cast_signed();
    }
}

/// See [`crate::quant::iq::Iq4Nl`].
pub struct IQ4NL;
impl Type32 for IQ4NL {
    const BYTES: usize = 18;
    const NAME: &'static str = "iq4_nl";
    #[inline(always)]
    fn unpack(b: &[u8], _: usize, codes: &mut [i8; 32]) {
        looked_up(&b[2..18], (&IQ4_CODES, 128), codes);
    }
}

/// See [`crate::quant::fp4::Mxfp4`].
pub struct MXFP4;
impl Type32 for MXFP4 {
    const BYTES: usize = 17;
    const NAME: &'static str = "mxfp4";
    #[inline(always)]
    fn d_and_m<S: Simd>(_: S, b: &[u8], _: usize) -> [f32; 2] {
        [e8m0_half(b[0]), 0.0]
    }
    #[inline(always)]
    fn unpack(b: &[u8], _: usize, codes: &mut [i8; 32]) {
        looked_up(&b[1..17], (&FP4_CODES, 16), codes);
    }
}
