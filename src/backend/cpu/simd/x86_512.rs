//! The AVX-512 tier (F, BW, VL, DQ, VNNI, VBMI): sixteen lanes in one register.

use super::wide::{Wide, WideKernel, quad, word_pair};
use super::x86_512_rows::{Rows, nibble_rows};
use super::{Kernel, Simd};
use std::arch::x86_64::*;

/// Proof that this CPU has AVX-512 F, BW, VL, DQ, VNNI and VBMI, and all of AVX2's tier.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

/// Whether this CPU (and system) has what [`Avx512`] adds to AVX2.
pub fn has_avx512() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("avx512vbmi")
}

impl Avx512 {
    /// Stands for the features.
    ///
    /// # Safety
    /// The CPU has them.
    pub unsafe fn assume() -> Self {
        Avx512(())
    }
}

/// Runs a kernel with AVX-512 code.
///
/// # Safety
/// The CPU has the features; the token proves it.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub unsafe fn call<K: Kernel>(token: Avx512, kernel: K) -> K::Out {
    kernel.run(token)
}

/// Runs a wide kernel with AVX-512 code.
///
/// # Safety
/// The CPU has the features; the token proves it.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub unsafe fn call_wide<K: WideKernel>(token: Avx512, kernel: K) -> K::Out {
    kernel.run(token)
}

/// Eight f32 lanes by halves.
#[inline(always)]
unsafe fn halves(v: __m512, max: bool) -> f32 {
    // SAFETY: AVX-512 by the caller's token.
    unsafe {
        let f = |a, b| if max { _mm256_max_ps(a, b) } else { _mm256_add_ps(a, b) };
        let v = f(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
        let g = |a, b| if max { _mm_max_ps(a, b) } else { _mm_add_ps(a, b) };
        let v = g(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let v = g(v, _mm_movehl_ps(v, v));
        _mm_cvtss_f32(g(v, _mm_movehdup_ps(v)))
    }
}

/// Methods of one instruction.
macro_rules! single {
    ($(fn $name:ident($($arg:ident),*) = $one:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: Self::F),*) -> Self::F {
            // SAFETY: the token proves AVX-512.
            unsafe { $one($($arg),*) }
        }
    )*};
}

impl Simd for Avx512 {
    const REGISTERS: usize = 32;
    type F = __m512;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, p: &[f32; 16]) -> Self::F {
        // SAFETY: the token proves AVX-512; 64 bytes lie in the array.
        unsafe { _mm512_loadu_ps(p.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, v: Self::F, p: &mut [f32; 16]) {
        // SAFETY: the token proves AVX-512; 64 bytes lie in the array.
        unsafe { _mm512_storeu_ps(p.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        // SAFETY: a hint; no memory is accessed as far as the program can tell.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) };
    }
    #[inline(always)]
    fn half(self, bits: u16) -> f32 {
        // SAFETY: the token proves F16C.
        unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(bits)))) }
    }
    #[inline(always)]
    fn load_f16(self, p: &[u8; 32]) -> Self::F {
        // SAFETY: the token proves AVX-512; 32 bytes lie in the array.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_bf16(self, p: &[u8; 32]) -> Self::F {
        // SAFETY: the token proves AVX-512; 32 bytes lie in the array.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    fn load_i8(self, p: &[u8; 16]) -> Self::F {
        // SAFETY: the token proves AVX-512; 16 bytes lie in the array.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.as_ptr().cast()))) }
    }
    #[inline(always)]
    fn store_f16(self, v: Self::F, p: &mut [u8; 32]) {
        // SAFETY: the token proves AVX-512; 32 bytes lie in the array.
        unsafe {
            let bits = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v);
            _mm256_storeu_si256(p.as_mut_ptr().cast(), bits);
        }
    }
    single! {
        fn add(a, b) = |a, b| _mm512_add_ps(a, b);
        fn sub(a, b) = |a, b| _mm512_sub_ps(a, b);
        fn mul(a, b) = |a, b| _mm512_mul_ps(a, b);
        fn div(a, b) = |a, b| _mm512_div_ps(a, b);
        fn fma(a, b, c) = |a, b, c| _mm512_fmadd_ps(a, b, c);
        fn max(a, b) = |a, b| _mm512_max_ps(a, b);
        fn min(a, b) = |a, b| _mm512_min_ps(a, b);
        fn select_lt(a, b, yes, no) = |a, b, yes, no| {
            _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b), no, yes)
        };
        fn round(v) = |v| {
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v)
        };
        fn exp2_whole(n) = |n| {
            let n = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(n))
        };
        fn magnitude_max(m, v) = |m, v| {
            let v = _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7fff_ffff));
            _mm512_castsi512_ps(_mm512_max_epu32(_mm512_castps_si512(m), v))
        };
    }
    #[inline(always)]
    fn store_i8(self, v: Self::F, p: &mut [i8; 16]) {
        // SAFETY: the token proves AVX-512; 16 bytes lie in the array.
        unsafe {
            let bytes = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v));
            _mm_storeu_si128(p.as_mut_ptr().cast(), bytes);
        }
    }
    #[inline(always)]
    fn reduce_add(self, v: Self::F) -> f32 {
        // SAFETY: the token proves AVX-512.
        unsafe { halves(v, false) }
    }
    #[inline(always)]
    fn reduce_max(self, v: Self::F) -> f32 {
        // SAFETY: the token proves AVX-512.
        unsafe { halves(v, true) }
    }
    #[inline(always)]
    fn dot_scaled(self, codes: &[u8; 256], x: &[i8; 256], scales: &[i16; 16]) -> i32 {
        // SAFETY: the token proves AVX-512; 4 x 64 bytes lie in both arrays.
        unsafe {
            let scales = _mm512_castsi256_si512(_mm256_loadu_si256(scales.as_ptr().cast()));
            // Lane l of step i takes scale 4 i + l / 8.
            let lane = _mm512_set_epi64(
                0x0003_0003_0003_0003,
                0x0003_0003_0003_0003,
                0x0002_0002_0002_0002,
                0x0002_0002_0002_0002,
                0x0001_0001_0001_0001,
                0x0001_0001_0001_0001,
                0,
                0,
            );
            let mut total = _mm512_setzero_si512();
            for i in 0..4i16 {
                let at = 64 * usize::from(i.cast_unsigned());
                let w = _mm512_loadu_si512(codes.as_ptr().add(at).cast());
                let x = _mm512_loadu_si512(x.as_ptr().add(at).cast());
                let index = _mm512_add_epi16(lane, _mm512_set1_epi16(4 * i));
                let scale = _mm512_permutexvar_epi16(index, scales);
                total = _mm512_dpwssd_epi32(total, _mm512_maddubs_epi16(w, x), scale);
            }
            _mm512_reduce_add_epi32(total)
        }
    }
    #[inline(always)]
    fn dot32(self, w: &[i8; 32], x: &[i8; 32]) -> i32 {
        // SAFETY: the token proves AVX-512 (VL, VNNI); 32 bytes lie in both arrays.
        unsafe {
            let w = _mm256_loadu_si256(w.as_ptr().cast());
            let x = _mm256_loadu_si256(x.as_ptr().cast());
            let signed = _mm256_sign_epi8(x, w);
            let zero = _mm256_setzero_si256();
            let sum = _mm256_dpbusd_epi32(zero, _mm256_abs_epi8(w), signed);
            _mm512_reduce_add_epi32(_mm512_zextsi256_si512(sum))
        }
    }
    #[inline(always)]
    fn dot16(self, a: &[i16; 16], b: &[i16; 16]) -> i32 {
        // SAFETY: the token proves AVX-512; 32 bytes lie in both arrays.
        unsafe {
            let a = _mm256_loadu_si256(a.as_ptr().cast());
            let sum = _mm256_madd_epi16(a, _mm256_loadu_si256(b.as_ptr().cast()));
            _mm512_reduce_add_epi32(_mm512_zextsi256_si512(sum))
        }
    }
}

/// Loads 32 bytes.
#[inline(always)]
unsafe fn half_load(p: *const u8) -> __m256i {
    // SAFETY: the caller has AVX2 and 32 readable bytes.
    unsafe { _mm256_loadu_si256(p.cast()) }
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
    fn shr_second<const N: u32>(self, v: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_mask_srli_epi16::<N>(v, 0xffff_0000, v) }
    }
    #[inline(always)]
    fn pick8(self, word: u64, index: &[u8; 64]) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_shuffle_epi8(_mm512_set1_epi64(word.cast_signed()), self.load_b(index)) }
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
    fn splat_quad(self, codes: &[u8; 256], index: usize) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_set1_epi32(quad(codes, index)) }
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
    fn sub_shl<const N: u32>(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_sub_epi32(a, _mm512_slli_epi32::<N>(b)) }
    }
    #[inline(always)]
    fn dot_scaled_b(self, acc: __m512i, codes: __m512i, x: __m512i, scales: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_dpwssd_epi32(acc, _mm512_maddubs_epi16(codes, x), scales) }
    }
    #[inline(always)]
    fn dot_scaled_signed(self, acc: __m512i, w: __m512i, x: __m512i, scales: __m512i) -> __m512i {
        let w = self.flip_sign(w);
        // SAFETY: the token proves AVX-512.
        let (bits, w) = unsafe { (_mm512_movepi8_mask(w), _mm512_abs_epi8(w)) };
        self.dot_scaled_b(acc, w, self.negate(x, bits), scales)
    }
    #[inline(always)]
    fn dot_offset<const OFFSET: u8>(self, codes: __m512i, x: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe {
            let zero = _mm512_setzero_si512();
            let offset = _mm512_set1_epi8(OFFSET.cast_signed());
            let start = if OFFSET == 0 {
                zero
            } else {
                // The same for all weight rows: computed once.
                _mm512_sub_epi32(zero, _mm512_dpbusd_epi32(zero, offset, x))
            };
            _mm512_dpbusd_epi32(start, codes, x)
        }
    }
    #[inline(always)]
    fn dot_mins(self, mins: u64, sums: &[i16; 16]) -> __m512i {
        // SAFETY: the token proves AVX-512; 32 bytes lie in the array.
        unsafe {
            let mins = _mm_cvtsi64_si128(mins.cast_signed());
            let mins = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(mins, mins));
            _mm512_zextsi256_si512(_mm256_madd_epi16(mins, half_load(sums.as_ptr().cast())))
        }
    }
    #[inline(always)]
    fn dot_sums(self, scales: &[i8; 16], sums: &[i16; 16]) -> __m512i {
        // SAFETY: the token proves AVX-512; the arrays hold 16 and 32 bytes.
        unsafe {
            let scales = _mm256_cvtepi8_epi16(_mm_loadu_si128(scales.as_ptr().cast()));
            _mm512_zextsi256_si512(_mm256_madd_epi16(scales, half_load(sums.as_ptr().cast())))
        }
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
    fn nibble_rows<const FIFTH: bool>(
        self,
        rows: [&[u8]; 4],
        (qs, sums, ds): (&[[i8; 256]], &[[i16; 16]], &[f32]),
    ) -> Option<[f32; 4]> {
        let bytes = qs.len() * if FIFTH { 176 } else { 144 };
        let fits = rows[0].len() >= bytes
            && rows[1].len() >= bytes
            && rows[2].len() >= bytes
            && rows[3].len() >= bytes
            && sums.len() >= qs.len()
            && ds.len() >= qs.len();
        if !fits {
            return None;
        }
        // SAFETY: the token proves AVX-512; all lengths were just checked.
        Some(unsafe { nibble_rows::<FIFTH>(&Rows { rows, qs, sums, ds }) })
    }
}
