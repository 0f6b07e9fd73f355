//! [`Wide`] for AVX-512: 64 bytes or sixteen i32 in one register.

use super::wide::{Wide, byte_pairs, word_pair};
use super::x86_512::Avx512;
use std::arch::x86_64::*;

/// Loads 32 bytes.
#[inline(always)]
unsafe fn half_load(p: *const u8) -> __m256i {
    // SAFETY: the caller has AVX2 and 32 readable bytes.
    unsafe { _mm256_loadu_si256(p.cast()) }
}

/// acc + codes * x summed by fours, x broadcast by the instruction itself: left to itself LLVM
/// broadcasts all of x before it multiplies, and spills (2 to 3 times the cycles of 4 rows).
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot_broadcast<const QUAD: usize>(acc: __m512i, codes: __m512i, x: &[i8; 32]) -> __m512i {
    let mut acc = acc;
    // SAFETY: the instruction reads four bytes of x.
    unsafe {
        std::arch::asm!(
            "vpdpbusd {acc}, {codes}, dword ptr [{x} + {at}]{{1to16}}",
            acc = inout(zmm_reg) acc,
            codes = in(zmm_reg) codes,
            x = in(reg) x.as_ptr(),
            at = const 4 * QUAD,
            options(readonly, nostack, preserves_flags),
        );
    }
    acc
}

/// acc + products of i16 summed by pairs, b broadcast by the instruction itself.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot_words_broadcast<const PAIR: usize>(acc: __m512i, a: __m512i, b: &[i16; 8]) -> __m512i {
    let mut acc = acc;
    // SAFETY: the instruction reads four bytes of b.
    unsafe {
        std::arch::asm!(
            "vpdpwssd {acc}, {a}, dword ptr [{b} + {at}]{{1to16}}",
            acc = inout(zmm_reg) acc,
            a = in(zmm_reg) a,
            b = in(reg) b.as_ptr(),
            at = const 4 * PAIR,
            options(readonly, nostack, preserves_flags),
        );
    }
    acc
}

/// acc + products of i16 summed by pairs. LLVM would make two instructions of a chain of these.
#[inline]
#[target_feature(enable = "avx512f,avx512vnni")]
fn dot_words_at_once(acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
    let mut acc = acc;
    // SAFETY: the instruction touches nothing but its registers.
    unsafe {
        std::arch::asm!(
            "vpdpwssd {acc}, {a}, {b}",
            acc = inout(zmm_reg) acc,
            a = in(zmm_reg) a,
            b = in(zmm_reg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    acc
}

impl Wide for Avx512 {
    type B = __m512i;
    type I = __m512i;
    const SIGNED_QUADS: bool = false;

    #[inline(always)]
    fn load_b(self, p: &[u8; 64]) -> __m512i {
        // SAFETY: the token proves AVX-512; 64 bytes lie in the array.
        unsafe { _mm512_loadu_si512(p.as_ptr().cast()) }
    }
    #[inline(always)]
    fn store_b(self, v: __m512i, p: &mut [u8; 64]) {
        // SAFETY: the token proves AVX-512; 64 bytes lie in the array.
        unsafe { _mm512_storeu_si512(p.as_mut_ptr().cast(), v) }
    }
    #[inline(always)]
    fn store_halves(self, v: __m512i, a: &mut [u8; 32], b: &mut [u8; 32]) {
        // SAFETY: the token proves AVX-512; the arrays are 32 bytes long.
        unsafe {
            _mm256_storeu_si256(a.as_mut_ptr().cast(), _mm512_castsi512_si256(v));
            _mm256_storeu_si256(b.as_mut_ptr().cast(), _mm512_extracti64x4_epi64::<1>(v));
        }
    }
    #[inline(always)]
    fn load_x(self, p: &[i8; 64]) -> __m512i {
        // SAFETY: the token proves AVX-512; 64 bytes lie in the array.
        unsafe { _mm512_loadu_si512(p.as_ptr().cast()) }
    }
    #[inline(always)]
    fn join(self, a: &[u8; 32], b: &[u8; 32]) -> __m512i {
        // SAFETY: the token proves AVX-512; the arrays are 32 bytes long.
        unsafe {
            let a = _mm512_castsi256_si512(half_load(a.as_ptr()));
            _mm512_inserti64x4::<1>(a, half_load(b.as_ptr()))
        }
    }
    #[inline(always)]
    fn join_x(self, a: &[i8; 32], b: &[i8; 32]) -> __m512i {
        // SAFETY: the token proves AVX-512; the arrays are 32 bytes long.
        unsafe {
            let a = _mm512_castsi256_si512(half_load(a.as_ptr().cast()));
            _mm512_inserti64x4::<1>(a, half_load(b.as_ptr().cast()))
        }
    }
    #[inline(always)]
    fn nibbles(self, a: &[u8; 16], b: &[u8; 16]) -> __m512i {
        // SAFETY: the token proves AVX-512; the arrays are 16 bytes long.
        unsafe {
            let a = _mm_loadu_si128(a.as_ptr().cast());
            let b = _mm_loadu_si128(b.as_ptr().cast());
            let a = _mm256_set_m128i(_mm_srli_epi16::<4>(a), a);
            let b = _mm256_set_m128i(_mm_srli_epi16::<4>(b), b);
            let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(a), b);
            _mm512_and_si512(both, _mm512_set1_epi8(15))
        }
    }
    #[inline(always)]
    fn splat_b(self, x: u8) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_set1_epi8(x.cast_signed()) }
    }
    #[inline(always)]
    fn and_b(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_and_si512(a, b) }
    }
    #[inline(always)]
    fn or_b(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    fn flip_sign(self, v: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_xor_si512(v, _mm512_set1_epi8(-128)) }
    }
    #[inline(always)]
    fn spread_bits(self, bits: u64) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_movm_epi8(bits) }
    }
    #[inline(always)]
    fn shr_b<const N: u32>(self, v: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_srli_epi16::<N>(v) }
    }
    #[inline(always)]
    fn shl_b<const N: u32>(self, v: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_slli_epi16::<N>(v) }
    }
    #[inline(always)]
    fn join_words(self, words: [u64; 8]) -> __m512i {
        let [a, b, c, d, e, f, g, h] = words.map(u64::cast_signed);
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_set_epi64(h, g, f, e, d, c, b, a) }
    }
    #[inline(always)]
    fn add_b(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_add_epi8(a, b) }
    }
    #[inline(always)]
    fn negate(self, v: __m512i, bits: u64) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_mask_sub_epi8(v, bits, _mm512_setzero_si512(), v) }
    }
    #[inline(always)]
    fn look_up(self, table: &[u8; 16], nibbles: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512; 16 bytes lie in the table.
        unsafe {
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            _mm512_shuffle_epi8(table, nibbles)
        }
    }
    #[inline(always)]
    fn look_up_low(self, table: &[u8; 16], v: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512 VBMI; 16 bytes lie in the table.
        unsafe {
            let table = _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()));
            _mm512_permutexvar_epi8(v, table)
        }
    }
    #[inline(always)]
    fn shr_second<const N: u32>(self, v: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_mask_srli_epi16::<N>(v, 0xffff_0000, v) }
    }
    #[inline(always)]
    fn pick16(self, bytes: &[i8; 16], index: &[u8; 64]) -> __m512i {
        // SAFETY: the token proves AVX-512; 16 bytes lie in the array.
        unsafe {
            let bytes = _mm512_broadcast_i32x4(_mm_loadu_si128(bytes.as_ptr().cast()));
            _mm512_srai_epi16::<8>(_mm512_shuffle_epi8(bytes, self.load_b(index)))
        }
    }
    #[inline(always)]
    fn zero_i(self) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    fn splat_quad(self, codes: &[u8; 4]) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_set1_epi32(i32::from_le_bytes(*codes)) }
    }
    #[inline(always)]
    fn splat_i(self, x: i32) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    fn splat_words(self, words: &[i16; 16], index: usize) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_set1_epi32(word_pair(words, index)) }
    }
    #[inline(always)]
    fn load_i(self, p: &[i32; 16]) -> __m512i {
        // SAFETY: the token proves AVX-512; 64 bytes lie in the array.
        unsafe { _mm512_loadu_si512(p.as_ptr().cast()) }
    }
    #[inline(always)]
    fn mul_add_i(self, acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_add_epi32(acc, _mm512_mullo_epi32(a, b)) }
    }
    #[inline(always)]
    fn dot_words(self, acc: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_dpwssd_epi32(acc, a, b) }
    }
    #[inline(always)]
    fn dot_quads<const OFFSET: u8>(self, acc: __m512i, codes: __m512i, x: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_dpbusd_epi32(acc, codes, x) }
    }
    #[inline(always)]
    fn to_f(self, v: __m512i) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_cvtepi32_ps(v) }
    }
    #[inline(always)]
    fn fnma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_fnmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn shl_i<const N: u32>(self, v: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_slli_epi32::<N>(v) }
    }
    #[inline(always)]
    fn sub_shl<const N: u32>(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_sub_epi32(a, _mm512_slli_epi32::<N>(b)) }
    }
    #[inline(always)]
    fn dot_scaled_b(self, acc: __m512i, codes: __m512i, x: __m512i, scales: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { dot_words_at_once(acc, _mm512_maddubs_epi16(codes, x), scales) }
    }
    #[inline(always)]
    fn dot_scaled_signed(self, acc: __m512i, w: __m512i, x: __m512i, scales: __m512i) -> __m512i {
        let w = self.flip_sign(w);
        // SAFETY: the token proves AVX-512.
        let (bits, w) = unsafe { (_mm512_movepi8_mask(w), _mm512_abs_epi8(w)) };
        self.dot_scaled_b(acc, w, self.negate(x, bits), scales)
    }
    #[inline(always)]
    fn reduce_halves(self, v: [__m512i; 4]) -> [[i32; 4]; 2] {
        let mut out = [[0; 4]; 2];
        // SAFETY: the token proves AVX-512; 16 bytes lie in each array.
        unsafe {
            let pair =
                |a, b| _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let (a, b) = (pair(v[0], v[1]), pair(v[2], v[3]));
            let sum = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
            let halves = [_mm512_castsi512_si256(sum), _mm512_extracti64x4_epi64::<1>(sum)];
            for (half, out) in halves.into_iter().zip(&mut out) {
                let high = _mm256_extracti128_si256::<1>(half);
                let sum = _mm_add_epi32(_mm256_castsi256_si128(half), high);
                _mm_storeu_si128(out.as_mut_ptr().cast(), sum);
            }
        }
        out
    }
    #[inline(always)]
    unsafe fn words(self, rows: &[*const u8; 16], at: usize) -> [__m512i; 4] {
        // SAFETY: the token proves AVX-512; the caller promises 16 bytes behind each pointer.
        unsafe {
            let pair = |a: usize, b: usize| {
                let a = _mm256_castsi128_si256(_mm_loadu_si128(rows[a].add(at).cast()));
                _mm256_inserti128_si256::<1>(a, _mm_loadu_si128(rows[b].add(at).cast()))
            };
            let four = |i: usize| {
                let low = _mm512_castsi256_si512(pair(i, i + 4));
                _mm512_inserti64x4::<1>(low, pair(i + 8, i + 12))
            };
            let v = [four(0), four(1), four(2), four(3)];
            let (a, b) = (_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
            let (c, d) = (_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
            [
                _mm512_unpacklo_epi64(a, c),
                _mm512_unpackhi_epi64(a, c),
                _mm512_unpacklo_epi64(b, d),
                _mm512_unpackhi_epi64(b, d),
            ]
        }
    }
    #[inline(always)]
    fn dot_x<const OFFSET: u8, const QUAD: usize>(
        self,
        acc: __m512i,
        codes: __m512i,
        x: &[i8; 32],
    ) -> __m512i {
        // SAFETY: the token proves AVX-512 VNNI.
        unsafe { dot_broadcast::<QUAD>(acc, codes, x) }
    }
    #[inline(always)]
    fn dot_pair<const PAIR: usize>(self, acc: __m512i, a: __m512i, words: &[i16; 8]) -> __m512i {
        // SAFETY: the token proves AVX-512 VNNI.
        unsafe { dot_words_broadcast::<PAIR>(acc, a, words) }
    }
    #[inline(always)]
    fn sub_b(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_sub_epi8(a, b) }
    }
    #[inline(always)]
    fn byte<const N: u32, const SIGNED: bool>(self, v: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe {
            if SIGNED {
                let top = _mm512_sllv_epi32(v, _mm512_set1_epi32(24 - 8 * N.cast_signed()));
                _mm512_srai_epi32::<24>(top)
            } else {
                let low = _mm512_srlv_epi32(v, _mm512_set1_epi32(8 * N.cast_signed()));
                _mm512_and_si512(low, _mm512_set1_epi32(255))
            }
        }
    }
    #[inline(always)]
    fn byte_pair<const N: u8, const SIGNED: bool>(self, v: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512; 16 bytes lie in the array.
        unsafe {
            let index = byte_pairs::<N, SIGNED>();
            let index = _mm512_broadcast_i32x4(_mm_loadu_si128(index.as_ptr().cast()));
            let words = _mm512_shuffle_epi8(v, index);
            if SIGNED { _mm512_srai_epi16::<8>(words) } else { words }
        }
    }
    #[inline(always)]
    fn half_of<const HIGH: bool>(self, v: __m512i) -> __m512 {
        // SAFETY: the token proves AVX-512.
        unsafe {
            let v = if HIGH { _mm512_srli_epi32::<16>(v) } else { v };
            _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v))
        }
    }
    #[inline(always)]
    fn fifth_bits(self, bits: __m512i, quad: usize) -> __m512i {
        // Where in two lanes each byte's eight bits begin: four below the bit that is asked for.
        let from = |byte: u64| (byte % 4 + byte / 4 * 32 + 4 * quad as u64 + 60) % 64;
        let at = (0..8).fold(0, |word, byte| word | from(byte) << (8 * byte));
        // SAFETY: the token proves AVX-512 VBMI.
        unsafe { _mm512_multishift_epi64_epi8(_mm512_set1_epi64(at.cast_signed()), bits) }
    }
    #[inline(always)]
    fn add_i(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    fn prefetch_second(self, p: *const u8) {
        // SAFETY: a hint; no memory is accessed as far as the program can tell.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) };
    }
}
