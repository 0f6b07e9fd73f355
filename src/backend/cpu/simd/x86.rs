//! The AVX2 tier (with FMA and F16C) and AVX-VNNI above it: sixteen lanes in two registers.

use super::wide::WideKernel;
use super::{Kernel, Simd};
use std::arch::x86_64::*;

/// Proof that this CPU has AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

/// Proof that this CPU also has AVX-VNNI.
#[derive(Clone, Copy, Debug)]
pub struct AvxVnni(Avx2);

/// Whether this CPU (and system) has what [`Avx2`] stands for.
pub fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c")
}

/// Whether this CPU has AVX-VNNI.
pub fn has_avx_vnni() -> bool {
    is_x86_feature_detected!("avxvnni")
}

impl Avx2 {
    /// Stands for the features.
    ///
    /// # Safety
    /// The CPU has them.
    pub unsafe fn assume() -> Self {
        Avx2(())
    }
}

impl AvxVnni {
    /// Stands for the features.
    ///
    /// # Safety
    /// The CPU has them.
    pub unsafe fn assume() -> Self {
        AvxVnni(Avx2(()))
    }
}

/// Runs a kernel with AVX2 code.
///
/// # Safety
/// The CPU has the features; the token proves it.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn call<K: Kernel>(token: Avx2, kernel: K) -> K::Out {
    kernel.run(token)
}

/// Runs a kernel with AVX2 and AVX-VNNI code.
///
/// # Safety
/// The CPU has the features; the token proves it.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub unsafe fn call_vnni<K: Kernel>(token: AvxVnni, kernel: K) -> K::Out {
    kernel.run(token)
}

/// Runs a wide kernel with AVX2 code.
///
/// # Safety
/// The CPU has the features; the token proves it.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn call_wide<K: WideKernel>(token: Avx2, kernel: K) -> K::Out {
    kernel.run(token)
}

/// Runs a wide kernel with AVX2 and AVX-VNNI code.
///
/// # Safety
/// The CPU has the features; the token proves it.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub unsafe fn call_wide_vnni<K: WideKernel>(token: AvxVnni, kernel: K) -> K::Out {
    kernel.run(token)
}

/// Sum of eight i32 lanes.
#[inline(always)]
unsafe fn sum_i32(v: __m256i) -> i32 {
    // SAFETY: AVX2 by the caller's token.
    unsafe {
        let v = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
        let v = _mm_add_epi32(v, _mm_shuffle_epi32::<0b0100_1110>(v));
        _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32::<0b1011_0001>(v)))
    }
}

/// Sum of eight f32 lanes by halves.
#[inline(always)]
unsafe fn halves(v: __m256, max: bool) -> f32 {
    // SAFETY: AVX2 by the caller's token.
    unsafe {
        let f = |a, b| if max { _mm_max_ps(a, b) } else { _mm_add_ps(a, b) };
        let v = f(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let v = f(v, _mm_movehl_ps(v, v));
        _mm_cvtss_f32(f(v, _mm_movehdup_ps(v)))
    }
}

/// The methods of two 256-bit registers; each line is one operation on both.
macro_rules! pair {
    ($(fn $name:ident($($arg:ident),*) = $one:expr;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: Self::F),*) -> Self::F {
            // SAFETY: the token proves AVX2, FMA and F16C.
            unsafe { [$one($($arg[0]),*), $one($($arg[1]),*)] }
        }
    )*};
}

impl Simd for Avx2 {
    const REGISTERS: usize = 8;
    type F = [__m256; 2];

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: the token proves AVX2.
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    fn load(self, p: &[f32; 16]) -> Self::F {
        // SAFETY: the token proves AVX2; both halves lie in the array.
        unsafe { [_mm256_loadu_ps(p.as_ptr()), _mm256_loadu_ps(p.as_ptr().add(8))] }
    }
    #[inline(always)]
    fn store(self, v: Self::F, p: &mut [f32; 16]) {
        let p = p.as_mut_ptr();
        // SAFETY: the token proves AVX2; both halves lie in the array.
        unsafe {
            _mm256_storeu_ps(p, v[0]);
            _mm256_storeu_ps(p.add(8), v[1]);
        }
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
        let p = p.as_ptr().cast::<__m128i>();
        // SAFETY: the token proves F16C; both halves lie in the array.
        unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(p)), _mm256_cvtph_ps(_mm_loadu_si128(p.add(1)))] }
    }
    #[inline(always)]
    fn load_bf16(self, p: &[u8; 32]) -> Self::F {
        let p = p.as_ptr().cast::<__m128i>();
        // SAFETY: the token proves AVX2; both halves lie in the array.
        unsafe {
            let one = |q| {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(q));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            };
            [one(p), one(p.add(1))]
        }
    }
    #[inline(always)]
    fn load_i8(self, p: &[u8; 16]) -> Self::F {
        // SAFETY: the token proves AVX2; 16 bytes lie in the array.
        unsafe {
            let p = _mm_loadu_si128(p.as_ptr().cast());
            let one = |p| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(p));
            [one(p), one(_mm_unpackhi_epi64(p, p))]
        }
    }
    #[inline(always)]
    fn store_f16(self, v: Self::F, p: &mut [u8; 32]) {
        let p = p.as_mut_ptr().cast::<__m128i>();
        // SAFETY: the token proves F16C; both halves lie in the array.
        unsafe {
            _mm_storeu_si128(p, _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[0]));
            _mm_storeu_si128(p.add(1), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v[1]));
        }
    }
    pair! {
        fn add(a, b) = _mm256_add_ps;
        fn sub(a, b) = _mm256_sub_ps;
        fn mul(a, b) = _mm256_mul_ps;
        fn div(a, b) = _mm256_div_ps;
        fn fma(a, b, c) = _mm256_fmadd_ps;
        fn max(a, b) = _mm256_max_ps;
        fn min(a, b) = _mm256_min_ps;
        fn select_lt(a, b, yes, no) = |a, b, yes, no| {
            _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b))
        };
        fn round(v) = |v| {
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v)
        };
        fn exp2_whole(n) = |n| {
            let n = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(n))
        };
        fn magnitude_max(m, v) = |m, v| {
            let v = _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x7fff_ffff));
            _mm256_castsi256_ps(_mm256_max_epu32(_mm256_castps_si256(m), v))
        };
    }
    #[inline(always)]
    fn store_i8(self, v: Self::F, p: &mut [i8; 16]) {
        // SAFETY: the token proves AVX2; sixteen bytes lie in the array.
        unsafe {
            let words = _mm256_packs_epi32(_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
            let words = _mm256_permute4x64_epi64::<0b1101_1000>(words);
            let (lo, hi) = (_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(p.as_mut_ptr().cast(), _mm_packs_epi16(lo, hi));
        }
    }
    #[inline(always)]
    fn reduce_add(self, v: Self::F) -> f32 {
        // SAFETY: the token proves AVX2.
        unsafe { halves(_mm256_add_ps(v[0], v[1]), false) }
    }
    #[inline(always)]
    fn reduce_max(self, v: Self::F) -> f32 {
        // SAFETY: the token proves AVX2.
        unsafe { halves(_mm256_max_ps(v[0], v[1]), true) }
    }
    #[inline(always)]
    fn dot_scaled(self, codes: &[u8; 256], x: &[i8; 256], scales: &[i16; 16]) -> i32 {
        // SAFETY: the token proves AVX2; 8 x 32 bytes lie in both arrays.
        unsafe {
            let mut total = _mm256_setzero_si256();
            for i in 0..8 {
                let w = _mm256_loadu_si256(codes.as_ptr().add(32 * i).cast());
                let x = _mm256_loadu_si256(x.as_ptr().add(32 * i).cast());
                let lo = _mm_set1_epi16(scales[2 * i]);
                let scale = _mm256_set_m128i(_mm_set1_epi16(scales[2 * i + 1]), lo);
                let sum = _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), scale);
                total = _mm256_add_epi32(total, sum);
            }
            sum_i32(total)
        }
    }
    #[inline(always)]
    fn dot32(self, w: &[i8; 32], x: &[i8; 32]) -> i32 {
        // SAFETY: the token proves AVX2; 32 bytes lie in both arrays.
        unsafe {
            let w = _mm256_loadu_si256(w.as_ptr().cast());
            let x = _mm256_loadu_si256(x.as_ptr().cast());
            let sum = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
            sum_i32(_mm256_madd_epi16(sum, _mm256_set1_epi16(1)))
        }
    }
    #[inline(always)]
    fn dot16(self, a: &[i16; 16], b: &[i16; 16]) -> i32 {
        // SAFETY: the token proves AVX2; 32 bytes lie in both arrays.
        unsafe {
            let a = _mm256_loadu_si256(a.as_ptr().cast());
            sum_i32(_mm256_madd_epi16(a, _mm256_loadu_si256(b.as_ptr().cast())))
        }
    }
}

/// Methods that a tier takes over from the one below it.
macro_rules! inherit {
    ($base:expr; $(fn $name:ident($($arg:ident: $type:ty),*) $(-> $out:ty)?;)*) => {$(
        #[inline(always)]
        fn $name(self, $($arg: $type),*) $(-> $out)? {
            ($base)(self).$name($($arg),*)
        }
    )*};
}

impl Simd for AvxVnni {
    const REGISTERS: usize = 8;
    type F = [__m256; 2];

    inherit! {
        |s: AvxVnni| s.0;
        fn splat(x: f32) -> Self::F;
        fn load(p: &[f32; 16]) -> Self::F;
        fn store(v: Self::F, p: &mut [f32; 16]);
        fn half(bits: u16) -> f32;
        fn prefetch(p: *const u8);
        fn load_f16(p: &[u8; 32]) -> Self::F;
        fn load_bf16(p: &[u8; 32]) -> Self::F;
        fn load_i8(p: &[u8; 16]) -> Self::F;
        fn store_f16(v: Self::F, p: &mut [u8; 32]);
        fn add(a: Self::F, b: Self::F) -> Self::F;
        fn sub(a: Self::F, b: Self::F) -> Self::F;
        fn mul(a: Self::F, b: Self::F) -> Self::F;
        fn div(a: Self::F, b: Self::F) -> Self::F;
        fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
        fn max(a: Self::F, b: Self::F) -> Self::F;
        fn min(a: Self::F, b: Self::F) -> Self::F;
        fn select_lt(a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F;
        fn round(v: Self::F) -> Self::F;
        fn exp2_whole(n: Self::F) -> Self::F;
        fn magnitude_max(m: Self::F, v: Self::F) -> Self::F;
        fn store_i8(v: Self::F, p: &mut [i8; 16]);
        fn reduce_add(v: Self::F) -> f32;
        fn reduce_max(v: Self::F) -> f32;
        fn dot16(a: &[i16; 16], b: &[i16; 16]) -> i32;
    }
    #[inline(always)]
    fn dot_scaled(self, codes: &[u8; 256], x: &[i8; 256], scales: &[i16; 16]) -> i32 {
        // SAFETY: the token proves AVX2 and AVX-VNNI; 8 x 32 bytes lie in both arrays.
        unsafe {
            let mut total = _mm256_setzero_si256();
            for i in 0..8 {
                let w = _mm256_loadu_si256(codes.as_ptr().add(32 * i).cast());
                let x = _mm256_loadu_si256(x.as_ptr().add(32 * i).cast());
                let lo = _mm_set1_epi16(scales[2 * i]);
                let scale = _mm256_set_m128i(_mm_set1_epi16(scales[2 * i + 1]), lo);
                total = _mm256_dpwssd_avx_epi32(total, _mm256_maddubs_epi16(w, x), scale);
            }
            sum_i32(total)
        }
    }
    #[inline(always)]
    fn dot32(self, w: &[i8; 32], x: &[i8; 32]) -> i32 {
        // SAFETY: the token proves AVX2 and AVX-VNNI; 32 bytes lie in both arrays.
        unsafe {
            let w = _mm256_loadu_si256(w.as_ptr().cast());
            let x = _mm256_loadu_si256(x.as_ptr().cast());
            let zero = _mm256_setzero_si256();
            let signed = _mm256_sign_epi8(x, w);
            sum_i32(_mm256_dpbusd_avx_epi32(zero, _mm256_abs_epi8(w), signed))
        }
    }
}
