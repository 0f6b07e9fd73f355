//! [`Wide`] for the ARM tiers: 64 bytes or sixteen i32 in four registers. Codes take part as signed
//! bytes except where i8mm multiplies unsigned by signed ones.

use super::Simd;
use super::neon::{Arm, F, NEON, dot_quad, each, registerwise};
use super::wide::{Wide, byte_pairs, quad_of, word_pair};
use std::arch::aarch64::*;

type B = [uint8x16_t; 4];
type I = [int32x4_t; 4];

/// Loads 16 bytes.
#[inline(always)]
unsafe fn load(p: *const u8) -> uint8x16_t {
    // SAFETY: the caller has 16 readable bytes.
    unsafe { vld1q_u8(p) }
}

/// The same bytes with signs.
#[inline(always)]
fn as_signed(v: uint8x16_t) -> int8x16_t {
    // SAFETY: a token's method calls this, so the CPU has NEON.
    unsafe { vreinterpretq_s8_u8(v) }
}

/// Codes minus 128, as signed bytes.
#[inline(always)]
fn centred(codes: uint8x16_t) -> int8x16_t {
    // SAFETY: a token's method calls this, so the CPU has NEON.
    as_signed(unsafe { veorq_u8(codes, vdupq_n_u8(128)) })
}

/// a * b summed by pairs, eight words of each.
#[inline(always)]
fn word_pairs(a: int16x8_t, b: int16x8_t) -> int32x4_t {
    // SAFETY: a token's method calls this, so the CPU has NEON.
    unsafe { vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b)) }
}

/// acc + (w * x summed by pairs) * scales summed by pairs.
#[inline(always)]
fn scaled(acc: int32x4_t, w: int8x16_t, x: uint8x16_t, scales: uint8x16_t) -> int32x4_t {
    // SAFETY: a token's method calls this, so the CPU has NEON. A pair of products is at most
    // 2 * 128 * 127, which fits a word.
    unsafe {
        let x = as_signed(x);
        let low = vmull_s8(vget_low_s8(w), vget_low_s8(x));
        let pairs = vpaddq_s16(low, vmull_high_s8(w, x));
        vaddq_s32(acc, word_pairs(pairs, vreinterpretq_s16_u8(scales)))
    }
}

impl<const DOT: u8> Arm<DOT> {
    /// acc + sixteen codes times sixteen values of x in each lane; OFFSET as in
    /// [`Wide::dot_quads`].
    #[inline(always)]
    fn dot_sixteen<const OFFSET: u8>(self, acc: I, codes: uint8x16_t, x: [B; 4]) -> I {
        let is_mixed = OFFSET == 128 && !Self::SIGNED_QUADS;
        let signed = if OFFSET == 128 && !is_mixed { centred(codes) } else { as_signed(codes) };
        // SAFETY: the token proves NEON, dotprod if DOT says so, and i8mm where quads are not
        // signed.
        each(|i| unsafe {
            let x = x.map(|x| as_signed(x[i]));
            match (DOT, is_mixed) {
                (NEON, _) => vaddq_s32(acc[i], sixteen(signed, x)),
                (_, false) => dot_quads::<false>(acc[i], signed, x),
                (_, true) => dot_quads::<true>(acc[i], signed, x),
            }
        })
    }
}

/// Sixteen codes, four for each register of x; if MIXED, without sign.
///
/// # Safety
/// The CPU has dotprod; if MIXED, i8mm.
#[inline(always)]
unsafe fn dot_quads<const MIXED: bool>(
    acc: int32x4_t,
    codes: int8x16_t,
    x: [int8x16_t; 4],
) -> int32x4_t {
    // SAFETY: the caller's promise.
    unsafe {
        let acc = dot_quad::<0, MIXED>(acc, codes, x[0]);
        let acc = dot_quad::<1, MIXED>(acc, codes, x[1]);
        let acc = dot_quad::<2, MIXED>(acc, codes, x[2]);
        dot_quad::<3, MIXED>(acc, codes, x[3])
    }
}

/// Sixteen codes times sixteen values of x in each lane. Two products fit a word.
#[inline(always)]
fn sixteen(codes: int8x16_t, x: [int8x16_t; 4]) -> int32x4_t {
    // SAFETY: a token's method calls this, so the CPU has NEON.
    unsafe {
        let w = vreinterpretq_s32_s8(codes);
        let w = [
            vdupq_laneq_s32::<0>(w),
            vdupq_laneq_s32::<1>(w),
            vdupq_laneq_s32::<2>(w),
            vdupq_laneq_s32::<3>(w),
        ]
        .map(|w| vreinterpretq_s8_s32(w));
        let low = |a: usize, b: usize| {
            let first = vmull_s8(vget_low_s8(w[a]), vget_low_s8(x[a]));
            vmlal_s8(first, vget_low_s8(w[b]), vget_low_s8(x[b]))
        };
        let high = |a: usize, b: usize| vmlal_high_s8(vmull_high_s8(w[a], x[a]), w[b], x[b]);
        let lows = vpadalq_s16(vpaddlq_s16(low(0, 1)), low(2, 3));
        vpaddq_s32(lows, vpadalq_s16(vpaddlq_s16(high(0, 1)), high(2, 3)))
    }
}

impl<const DOT: u8> Wide for Arm<DOT> {
    const SIGNED_QUADS: bool = DOT < 2;
    type B = B;
    type I = I;

    registerwise! {
        fn and_b(a: B, b: B) -> B = vandq_u8;
        fn or_b(a: B, b: B) -> B = vorrq_u8;
        fn add_b(a: B, b: B) -> B = vaddq_u8;
        fn sub_b(a: B, b: B) -> B = vsubq_u8;
        fn flip_sign(v: B) -> B = |v| veorq_u8(v, vdupq_n_u8(128));
        fn add_i(a: I, b: I) -> I = vaddq_s32;
        fn mul_add_i(acc: I, a: I, b: I) -> I = vmlaq_s32;
        fn dot_words(acc: I, a: I, b: I) -> I = |acc, a, b| {
            // Of words that are the same in all lanes, or meet several, these are taken out once.
            let low = |v| vshrq_n_s32::<16>(vshlq_n_s32::<16>(v));
            let high = |v| vshrq_n_s32::<16>(v);
            vmlaq_s32(vmlaq_s32(acc, low(a), low(b)), high(a), high(b))
        };
        fn to_f(v: I) -> F = vcvtq_f32_s32;
        fn fnma(a: F, b: F, c: F) -> F = |a, b, c| vfmsq_f32(c, a, b);
    }
    #[inline(always)]
    fn load_b(self, p: &[u8; 64]) -> B {
        // SAFETY: four quarters lie in the array.
        each(|i| unsafe { load(p.as_ptr().add(16 * i)) })
    }
    #[inline(always)]
    fn store_b(self, v: B, p: &mut [u8; 64]) {
        for (v, p) in v.into_iter().zip(p.as_chunks_mut::<16>().0) {
            // SAFETY: the token proves NEON; 16 bytes lie in the chunk.
            unsafe { vst1q_u8(p.as_mut_ptr(), v) };
        }
    }
    #[inline(always)]
    fn store_halves(self, v: B, a: &mut [u8; 32], b: &mut [u8; 32]) {
        let to = a.as_chunks_mut::<16>().0.iter_mut().chain(b.as_chunks_mut::<16>().0);
        for (v, p) in v.into_iter().zip(to) {
            // SAFETY: the token proves NEON; 16 bytes lie in the chunk.
            unsafe { vst1q_u8(p.as_mut_ptr(), v) };
        }
    }
    #[inline(always)]
    fn load_x(self, p: &[i8; 64]) -> B {
        // SAFETY: four quarters lie in the array.
        each(|i| unsafe { load(p.as_ptr().cast::<u8>().add(16 * i)) })
    }
    #[inline(always)]
    fn splat_quad(self, codes: &[u8; 4]) -> B {
        // SAFETY: the token proves NEON.
        unsafe { [vreinterpretq_u8_s32(vdupq_n_s32(i32::from_le_bytes(*codes))); 4] }
    }
    #[inline(always)]
    fn join(self, a: &[u8; 32], b: &[u8; 32]) -> B {
        let (a, b) = (a.as_ptr(), b.as_ptr());
        // SAFETY: the arrays are 32 bytes long.
        unsafe { [load(a), load(a.add(16)), load(b), load(b.add(16))] }
    }
    #[inline(always)]
    fn join_x(self, a: &[i8; 32], b: &[i8; 32]) -> B {
        let (a, b) = (a.as_ptr().cast::<u8>(), b.as_ptr().cast::<u8>());
        // SAFETY: the arrays are 32 bytes long.
        unsafe { [load(a), load(a.add(16)), load(b), load(b.add(16))] }
    }
    #[inline(always)]
    fn nibbles(self, a: &[u8; 16], b: &[u8; 16]) -> B {
        // SAFETY: the token proves NEON; the arrays are 16 bytes long.
        unsafe {
            let (a, b, mask) = (load(a.as_ptr()), load(b.as_ptr()), vdupq_n_u8(15));
            let low = |v| vandq_u8(v, mask);
            [low(a), vshrq_n_u8::<4>(a), low(b), vshrq_n_u8::<4>(b)]
        }
    }
    #[inline(always)]
    fn splat_b(self, x: u8) -> B {
        // SAFETY: the token proves NEON.
        unsafe { [vdupq_n_u8(x); 4] }
    }
    #[inline(always)]
    fn spread_bits(self, bits: u64) -> B {
        let bit = [1u8, 2, 4, 8, 16, 32, 64, 128];
        // SAFETY: the token proves NEON; eight bytes lie in the array.
        each(|i| unsafe {
            let word = (bits >> (16 * i)) as u16;
            let bytes = vcombine_u8(vdup_n_u8(word as u8), vdup_n_u8((word >> 8) as u8));
            let bit = vld1_u8(bit.as_ptr());
            vtstq_u8(bytes, vcombine_u8(bit, bit))
        })
    }
    #[inline(always)]
    fn join_words(self, words: [u64; 8]) -> B {
        // SAFETY: the token proves NEON.
        each(|i| unsafe {
            vreinterpretq_u8_u64(vcombine_u64(
                vcreate_u64(words[2 * i]),
                vcreate_u64(words[2 * i + 1]),
            ))
        })
    }
    #[inline(always)]
    fn negate(self, v: B, bits: u64) -> B {
        let chosen = self.spread_bits(bits);
        // SAFETY: the token proves NEON.
        each(|i| unsafe {
            let negative = vreinterpretq_u8_s8(vnegq_s8(vreinterpretq_s8_u8(v[i])));
            vbslq_u8(chosen[i], negative, v[i])
        })
    }
    #[inline(always)]
    fn look_up(self, table: &[u8; 16], nibbles: B) -> B {
        // SAFETY: the token proves NEON; 16 bytes lie in the table.
        each(|i| unsafe { vqtbl1q_u8(load(table.as_ptr()), nibbles[i]) })
    }
    #[inline(always)]
    fn shr_b<const N: u32>(self, v: B) -> B {
        // SAFETY: the token proves NEON; a negative count shifts right.
        each(|i| unsafe {
            let n = vdupq_n_s16(-(N as i16));
            vreinterpretq_u8_u16(vshlq_u16(vreinterpretq_u16_u8(v[i]), n))
        })
    }
    #[inline(always)]
    fn shl_b<const N: u32>(self, v: B) -> B {
        // SAFETY: the token proves NEON.
        each(|i| unsafe {
            vreinterpretq_u8_u16(vshlq_u16(vreinterpretq_u16_u8(v[i]), vdupq_n_s16(N as i16)))
        })
    }
    #[inline(always)]
    fn shr_second<const N: u32>(self, v: B) -> B {
        let shifted = self.shr_b::<N>(v);
        [v[0], v[1], shifted[2], shifted[3]]
    }
    #[inline(always)]
    fn pick16(self, bytes: &[i8; 16], index: &[u8; 64]) -> B {
        let index = self.load_b(index);
        // SAFETY: the token proves NEON; 16 bytes lie in the array.
        each(|i| unsafe {
            let picked = vqtbl1q_u8(load(bytes.as_ptr().cast()), index[i]);
            vreinterpretq_u8_s16(vshrq_n_s16::<8>(vreinterpretq_s16_u8(picked)))
        })
    }
    #[inline(always)]
    fn zero_i(self) -> I {
        self.splat_i(0)
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> I {
        // SAFETY: the token proves NEON.
        unsafe { [vdupq_n_s32(x); 4] }
    }
    #[inline(always)]
    fn splat_words(self, words: &[i16; 16], index: usize) -> I {
        self.splat_i(word_pair(words, index))
    }
    #[inline(always)]
    fn load_i(self, p: &[i32; 16]) -> I {
        // SAFETY: the token proves NEON; four quarters lie in the array.
        each(|i| unsafe { vld1q_s32(p.as_ptr().add(4 * i)) })
    }
    #[inline(always)]
    fn dot_quads<const OFFSET: u8>(self, acc: I, codes: B, x: B) -> I {
        // SAFETY: the token proves NEON, and i8mm where quads are not signed.
        each(|i| unsafe {
            let x = as_signed(x[i]);
            match (OFFSET, Self::SIGNED_QUADS) {
                (128, true) => self.dot_signed(acc[i], centred(codes[i]), x),
                (128, false) => self.dot_mixed(acc[i], codes[i], x),
                _ => self.dot_signed(acc[i], as_signed(codes[i]), x),
            }
        })
    }
    #[inline(always)]
    fn shl_i<const N: u32>(self, v: I) -> I {
        // SAFETY: the token proves NEON.
        each(|i| unsafe { vshlq_s32(v[i], vdupq_n_s32(N as i32)) })
    }
    #[inline(always)]
    fn sub_shl<const N: u32>(self, a: I, b: I) -> I {
        let b = self.shl_i::<N>(b);
        // SAFETY: the token proves NEON.
        each(|i| unsafe { vsubq_s32(a[i], b[i]) })
    }
    #[inline(always)]
    fn dot_scaled_b(self, acc: I, codes: B, x: B, scales: B) -> I {
        each(|i| scaled(acc[i], as_signed(codes[i]), x[i], scales[i]))
    }
    #[inline(always)]
    fn dot_scaled_signed(self, acc: I, codes: B, x: B, scales: B) -> I {
        each(|i| scaled(acc[i], centred(codes[i]), x[i], scales[i]))
    }
    #[inline(always)]
    fn reduce_halves(self, v: [I; 4]) -> [[i32; 4]; 2] {
        // SAFETY: the token proves NEON.
        [0, 2].map(|at| v.map(|v| unsafe { vaddvq_s32(vaddq_s32(v[at], v[at + 1])) }))
    }
    #[inline(always)]
    fn dot_tile<const R: usize, const C: usize, const OFFSET: u8>(
        self,
        mut acc: [[I; C]; R],
        codes: [&[[u8; 16]]; R],
        x: [&[[[i8; 64]; 4]]; C],
    ) -> [[I; C]; R] {
        for i in 0..x[0].len() {
            // SAFETY: 16 bytes lie in the array.
            let codes = codes.map(|codes| unsafe { load(codes[i].as_ptr()) });
            for c in 0..C {
                let x = x[c][i].each_ref().map(|x| self.load_x(x));
                for r in 0..R {
                    acc[r][c] = self.dot_sixteen::<OFFSET>(acc[r][c], codes[r], x);
                }
            }
        }
        acc
    }
    #[inline(always)]
    unsafe fn words(self, rows: &[*const u8; 16], at: usize) -> [B; 4] {
        let mut out = [self.splat_b(0); 4];
        for quarter in 0..4 {
            // SAFETY: the token proves NEON; the caller promises 16 bytes a pointer.
            unsafe {
                let row = |i: usize| vreinterpretq_u32_u8(load(rows[4 * quarter + i].add(at)));
                let (a, b, c, d) = (row(0), row(1), row(2), row(3));
                let wide = |v| vreinterpretq_u64_u32(v);
                let (ab, cd) = (wide(vtrn1q_u32(a, b)), wide(vtrn1q_u32(c, d)));
                let (odd_ab, odd_cd) = (wide(vtrn2q_u32(a, b)), wide(vtrn2q_u32(c, d)));
                out[0][quarter] = vreinterpretq_u8_u64(vtrn1q_u64(ab, cd));
                out[1][quarter] = vreinterpretq_u8_u64(vtrn1q_u64(odd_ab, odd_cd));
                out[2][quarter] = vreinterpretq_u8_u64(vtrn2q_u64(ab, cd));
                out[3][quarter] = vreinterpretq_u8_u64(vtrn2q_u64(odd_ab, odd_cd));
            }
        }
        out
    }
    #[inline(always)]
    fn dot_x<const OFFSET: u8, const QUAD: usize>(self, acc: I, codes: B, x: &[i8; 32]) -> I {
        let x = quad_of(x, QUAD);
        // SAFETY: the token proves NEON.
        let x = unsafe { [vreinterpretq_u8_s32(vdupq_n_s32(x)); 4] };
        self.dot_quads::<OFFSET>(acc, codes, x)
    }
    #[inline(always)]
    fn byte<const N: u32, const SIGNED: bool>(self, v: B) -> I {
        // SAFETY: the token proves NEON; a negative count shifts right.
        each(|i| unsafe {
            let v = vreinterpretq_s32_u8(v[i]);
            let top = vshlq_s32(v, vdupq_n_s32(24 - 8 * N as i32));
            if SIGNED {
                vshrq_n_s32::<24>(top)
            } else {
                vreinterpretq_s32_u32(vshrq_n_u32::<24>(vreinterpretq_u32_s32(top)))
            }
        })
    }
    #[inline(always)]
    fn byte_pair<const N: u8, const SIGNED: bool>(self, v: B) -> I {
        let index = byte_pairs::<N, SIGNED>();
        // SAFETY: the token proves NEON; 16 bytes lie in the array.
        each(|i| unsafe {
            let words = vreinterpretq_s16_u8(vqtbl1q_u8(v[i], load(index.as_ptr())));
            vreinterpretq_s32_s16(if SIGNED { vshrq_n_s16::<8>(words) } else { words })
        })
    }
    #[inline(always)]
    fn half_of<const HIGH: bool>(self, v: B) -> F {
        let mut bytes = [0; 32];
        for (v, out) in v.into_iter().zip(bytes.as_chunks_mut::<8>().0) {
            // SAFETY: the token proves NEON; eight bytes lie in the chunk.
            unsafe {
                let v = vreinterpretq_u32_u8(v);
                let half = if HIGH { vshrn_n_u32::<16>(v) } else { vmovn_u32(v) };
                vst1_u8(out.as_mut_ptr(), vreinterpret_u8_u16(half));
            }
        }
        self.load_f16(&bytes)
    }
    #[inline(always)]
    fn fifth_bits(self, bits: B, quad: usize) -> B {
        let byte: [u8; 16] = std::array::from_fn(|i| (i / 4 * 4 + quad / 2) as u8);
        let bit: [u8; 16] = std::array::from_fn(|i| 1 << (i % 4 + quad % 2 * 4));
        // SAFETY: the token proves NEON; 16 bytes lie in each array.
        each(|i| unsafe { vtstq_u8(vqtbl1q_u8(bits[i], load(byte.as_ptr())), load(bit.as_ptr())) })
    }
    #[inline(always)]
    fn prefetch_second(self, p: *const u8) {
        self.prefetch(p);
    }
}
