//! The AVX-512 tier (F, BW, VL, DQ, VNNI, VBMI): sixteen lanes in one register.

use super::wide::WideKernel;
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
