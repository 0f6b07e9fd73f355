//! Blocks in registers: how the one-row kernels take 64 codes at a time out of a block, and which
//! scale goes with which lane. Layouts stand in `unpack`.

use super::super::simd::wide::Wide;
use super::matvec::{Dot32, Dot256, Parts};
use super::unpack::{Q2K, Q3K, Q4K, Q5K, Q6K, Q40, Q41, Q50, Q51, Q80};

/// For [`Wide::pick8`]: the first 32 bytes take byte `a`, the others byte `b`, as i16.
const fn two(a: u8, b: u8) -> [u8; 64] {
    let mut index = [128; 64];
    let mut i = 0;
    while i < 64 {
        index[i] = if i < 32 { a } else { b };
        i += 2;
    }
    index
}

/// For [`Wide::pick16`]: each 16 bytes take the next byte from `first` on, as the high byte.
const fn four(first: u8) -> [u8; 64] {
    let mut index = [128; 64];
    let mut i = 0;
    while i < 64 {
        index[i + 1] = first + (i / 16) as u8;
        i += 2;
    }
    index
}

/// Sub-blocks 4 p, 4 p + 2 (low nibbles) and 4 p + 1, 4 p + 3 (high ones) of 64 bytes of Q4_K.
const NIBBLES: [[u8; 64]; 4] = [two(0, 2), two(1, 3), two(4, 6), two(5, 7)];
/// Sixteens of 64 codes in order.
const FOURS: [[u8; 64]; 4] = [four(0), four(4), four(8), four(12)];
#[inline(always)]
fn bytes<const N: usize>(b: &[u8], at: usize) -> &[u8; N] {
    b[at..].first_chunk().unwrap_or(&[0; N])
}

#[inline(always)]
fn half<S: Wide>(s: S, b: &[u8], at: usize) -> f32 {
    s.half(u16::from_le_bytes(*bytes(b, at)))
}

/// 32 activations at `at` and 32 at `at + 64`.
#[inline(always)]
fn x_apart<S: Wide>(s: S, x: &[i8; 256], at: usize) -> S::B {
    match (x[at..].first_chunk(), x[at + 64..].first_chunk()) {
        (Some(a), Some(b)) => s.join_x(a, b),
        _ => s.splat_b(0),
    }
}

#[inline(always)]
fn x_at<S: Wide>(s: S, x: &[i8; 256], at: usize) -> S::B {
    x[at..].first_chunk().map_or_else(|| s.splat_b(0), |x| s.load_x(x))
}

/// The eight 6-bit scales and mins of Q4_K and Q5_K, a byte each.
#[inline(always)]
fn scales_6bit(b: &[u8]) -> (u64, u64) {
    let word = |at: usize| u32::from_le_bytes(*bytes(b, at));
    let (a, m, h) = (word(4), word(8), word(12));
    let s = (h & 0x0f0f_0f0f) | ((a >> 2) & 0x3030_3030);
    let n = ((h >> 4) & 0x0f0f_0f0f) | ((m >> 2) & 0x3030_3030);
    let pair = |lo: u32, hi: u32| u64::from(lo & 0x3f3f_3f3f) | u64::from(hi) << 32;
    (pair(a, s), pair(m, n))
}

impl Dot256 for Q4K {
    #[inline(always)]
    fn dot<S: Wide>(s: S, b: &[u8], x: &[i8; 256], sums: &[i16; 16]) -> Parts<S> {
        let (scales, mins) = scales_6bit(b);
        let mask = s.splat_b(15);
        let mut t = s.zero_i();
        for p in 0..2 {
            let q = s.load_b(bytes(b, 16 + 64 * p));
            let (lo, hi) = (s.and_b(q, mask), s.and_b(s.shr_b::<4>(q), mask));
            let scale = s.pick8(scales, &NIBBLES[2 * p]);
            t = s.dot_scaled_b(t, lo, x_apart(s, x, 128 * p), scale);
            let scale = s.pick8(scales, &NIBBLES[2 * p + 1]);
            t = s.dot_scaled_b(t, hi, x_apart(s, x, 128 * p + 32), scale);
        }
        Parts { t, m: Some(s.dot_mins(mins, sums)), d: half(s, b, 0), dmin: half(s, b, 2) }
    }
}

impl Dot256 for Q5K {
    #[inline(always)]
    fn dot<S: Wide>(s: S, b: &[u8], x: &[i8; 256], sums: &[i16; 16]) -> Parts<S> {
        let (scales, mins) = scales_6bit(b);
        let (mask, fifth) = (s.splat_b(15), s.splat_b(16));
        let h: &[u8; 32] = bytes(b, 16);
        // Bit 4 p + e of a byte of the first half, bit 4 p + 2 + e of the second.
        let h = s.shr_second::<2>(s.join(h, h));
        let high = [s.shl_b::<4>(h), s.shl_b::<3>(h), h, s.shr_b::<1>(h)];
        let mut t = s.zero_i();
        for p in 0..2 {
            let q = s.load_b(bytes(b, 48 + 64 * p));
            let lo = s.or_b(s.and_b(q, mask), s.and_b(high[2 * p], fifth));
            let hi = s.or_b(s.and_b(s.shr_b::<4>(q), mask), s.and_b(high[2 * p + 1], fifth));
            let scale = s.pick8(scales, &NIBBLES[2 * p]);
            t = s.dot_scaled_b(t, lo, x_apart(s, x, 128 * p), scale);
            let scale = s.pick8(scales, &NIBBLES[2 * p + 1]);
            t = s.dot_scaled_b(t, hi, x_apart(s, x, 128 * p + 32), scale);
        }
        Parts { t, m: Some(s.dot_mins(mins, sums)), d: half(s, b, 0), dmin: half(s, b, 2) }
    }
}

impl Dot256 for Q6K {
    #[inline(always)]
    fn dot<S: Wide>(s: S, b: &[u8], x: &[i8; 256], sums: &[i16; 16]) -> Parts<S> {
        let scales = bytes::<16>(b, 192).map(u8::cast_signed);
        let (mask, upper) = (s.splat_b(15), s.splat_b(48));
        let mut t = s.zero_i();
        for j in 0..2 {
            let q = s.load_b(bytes(b, 64 * j));
            let h: &[u8; 32] = bytes(b, 128 + 32 * j);
            let h = s.shr_second::<2>(s.join(h, h));
            let lo = s.or_b(s.and_b(q, mask), s.and_b(s.shl_b::<4>(h), upper));
            let hi = s.or_b(s.and_b(s.shr_b::<4>(q), mask), s.and_b(h, upper));
            let scale = s.pick16(&scales, &FOURS[2 * j]);
            t = s.dot_scaled_b(t, lo, x_at(s, x, 128 * j), scale);
            let scale = s.pick16(&scales, &FOURS[2 * j + 1]);
            t = s.dot_scaled_b(t, hi, x_at(s, x, 128 * j + 64), scale);
        }
        let t = s.sub_shl::<5>(t, s.dot_sums(&scales, sums));
        Parts { t, m: None, d: half(s, b, 208), dmin: 0.0 }
    }
}

impl Dot256 for Q2K {
    #[inline(always)]
    fn dot<S: Wide>(s: S, b: &[u8], x: &[i8; 256], sums: &[i16; 16]) -> Parts<S> {
        let word = u128::from_le_bytes(*bytes(b, 0));
        let low = u128::from_le_bytes([15; 16]);
        let scales = (word & low).to_le_bytes().map(u8::cast_signed);
        let mins = ((word >> 4) & low).to_le_bytes().map(u8::cast_signed);
        let mask = s.splat_b(3);
        // 64 bytes: pair 2 e of bits gives 32 codes at 32 e of the first half and of the second.
        let q = s.load_b(bytes(b, 16));
        let planes = [q, s.shr_b::<2>(q), s.shr_b::<4>(q), s.shr_b::<6>(q)];
        let mut t = s.zero_i();
        for (e, plane) in planes.into_iter().enumerate() {
            let (a, c) = (x[32 * e..].first_chunk(), x[128 + 32 * e..].first_chunk());
            let (Some(a), Some(c)) = (a, c) else { continue };
            let scale = s.pick16(&scales, &PLANES[e]);
            t = s.dot_scaled_b(t, s.and_b(plane, mask), s.join_x(a, c), scale);
        }
        let m = s.dot_sums(&mins, sums);
        Parts { t, m: Some(m), d: half(s, b, 80), dmin: half(s, b, 82) }
    }
}

/// Sixteens 2 e, 2 e + 1, 8 + 2 e, 9 + 2 e.
const PLANES: [[u8; 64]; 4] = [plane(0), plane(2), plane(4), plane(6)];

const fn plane(first: u8) -> [u8; 64] {
    let mut index = [128; 64];
    let mut i = 0;
    while i < 64 {
        let sixteen = (i / 16) as u8;
        index[i + 1] = first + sixteen + if sixteen > 1 { 6 } else { 0 };
        i += 2;
    }
    index
}

impl Dot256 for Q3K {
    #[inline(always)]
    fn dot<S: Wide>(s: S, b: &[u8], x: &[i8; 256], sums: &[i16; 16]) -> Parts<S> {
        let (lo, hi) = (u64::from_le_bytes(*bytes(b, 96)), u32::from_le_bytes(*bytes(b, 104)));
        let pairs = |shift: u32| u64::from((hi >> shift) & 0x0303_0303) << 4;
        let nibbles = |shift: u32| (lo >> shift) & 0x0f0f_0f0f_0f0f_0f0f;
        let first = nibbles(0) | pairs(0) | pairs(2) << 32;
        let second = nibbles(4) | pairs(4) | pairs(6) << 32;
        let scales = (u128::from(first) | u128::from(second) << 64).to_le_bytes();
        let scales = scales.map(|scale| scale.cast_signed() - 32);
        let (mask, third) = (s.splat_b(3), s.splat_b(4));
        let q = s.load_b(bytes(b, 32));
        let h: &[u8; 32] = bytes(b, 0);
        // Bit e of a byte of the first half, bit 4 + e of the second.
        let h = s.shr_second::<4>(s.join(h, h));
        let planes = [q, s.shr_b::<2>(q), s.shr_b::<4>(q), s.shr_b::<6>(q)];
        let high = [s.shl_b::<2>(h), s.shl_b::<1>(h), h, s.shr_b::<1>(h)];
        let mut t = s.zero_i();
        for e in 0..4 {
            let (a, c) = (x[32 * e..].first_chunk(), x[128 + 32 * e..].first_chunk());
            let (Some(a), Some(c)) = (a, c) else { continue };
            let codes = s.or_b(s.and_b(planes[e], mask), s.and_b(high[e], third));
            let scale = s.pick16(&scales, &PLANES[e]);
            t = s.dot_scaled_b(t, codes, s.join_x(a, c), scale);
        }
        let t = s.sub_shl::<2>(t, s.dot_sums(&scales, sums));
        Parts { t, m: None, d: half(s, b, 108), dmin: 0.0 }
    }
}

impl Dot32 for Q40 {
    const OFFSET: u8 = 8;
    #[inline(always)]
    fn codes<S: Wide>(s: S, a: &[u8], b: &[u8]) -> S::B {
        s.nibbles(bytes(a, 2), bytes(b, 2))
    }
}

impl Dot32 for Q41 {
    const OFFSET: u8 = 0;
    #[inline(always)]
    fn codes<S: Wide>(s: S, a: &[u8], b: &[u8]) -> S::B {
        s.nibbles(bytes(a, 4), bytes(b, 4))
    }
}

/// Nibbles with a fifth bit from two words.
#[inline(always)]
fn fives<S: Wide>(s: S, nibbles: S::B, a: [u8; 4], b: [u8; 4]) -> S::B {
    let bits = u64::from(u32::from_le_bytes(a)) | u64::from(u32::from_le_bytes(b)) << 32;
    s.or_b(nibbles, s.and_b(s.spread_bits(bits), s.splat_b(16)))
}

impl Dot32 for Q50 {
    const OFFSET: u8 = 16;
    #[inline(always)]
    fn codes<S: Wide>(s: S, a: &[u8], b: &[u8]) -> S::B {
        let nibbles = s.nibbles(bytes(a, 6), bytes(b, 6));
        fives(s, nibbles, *bytes(a, 2), *bytes(b, 2))
    }
}

impl Dot32 for Q51 {
    const OFFSET: u8 = 0;
    #[inline(always)]
    fn codes<S: Wide>(s: S, a: &[u8], b: &[u8]) -> S::B {
        let nibbles = s.nibbles(bytes(a, 8), bytes(b, 8));
        fives(s, nibbles, *bytes(a, 4), *bytes(b, 4))
    }
}

impl Dot32 for Q80 {
    const OFFSET: u8 = 128;
    #[inline(always)]
    fn codes<S: Wide>(s: S, a: &[u8], b: &[u8]) -> S::B {
        s.flip_sign(s.join(bytes(a, 2), bytes(b, 2)))
    }
}
