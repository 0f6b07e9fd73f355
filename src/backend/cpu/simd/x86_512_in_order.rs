//! [`InOrder`] for AVX-512.

use super::in_order::{InOrder, InOrderKernel};
use super::x86_512::Avx512;
use std::arch::x86_64::*;

/// Runs such a kernel with AVX-512 code.
///
/// # Safety
/// The CPU has the features; the token proves it.
#[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub unsafe fn call_in_order<K: InOrderKernel>(token: Avx512, kernel: K) {
    kernel.run(token);
}

/// Words `first` to `first` + 3, each eight times.
const fn fours(first: u16) -> [u16; 32] {
    let mut index = [0; 32];
    let mut i = 0;
    while i < 32 {
        index[i] = first + (i / 8) as u16;
        i += 1;
    }
    index
}

const FOURS: [[u16; 32]; 4] = [fours(0), fours(4), fours(8), fours(12)];

/// Quarters of a added by pairs, then those of b.
#[inline(always)]
unsafe fn halve(a: __m512i, b: __m512i) -> __m512i {
    // SAFETY: AVX-512 by the caller's token.
    unsafe {
        let even = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b);
        _mm512_add_epi32(even, _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b))
    }
}

impl InOrder for Avx512 {
    #[inline(always)]
    fn scales16(self, bytes: &[u8; 16]) -> (__m512i, [__m512i; 4]) {
        // SAFETY: the token proves AVX-512; the arrays are as long as what is read.
        unsafe {
            let bytes = _mm256_broadcastsi128_si256(_mm_loadu_si128(bytes.as_ptr().cast()));
            let words = _mm512_cvtepi8_epi16(bytes);
            let mut out = [words; 4];
            for (out, index) in out.iter_mut().zip(&FOURS) {
                let index = _mm512_loadu_si512(index.as_ptr().cast());
                *out = _mm512_permutexvar_epi16(index, words);
            }
            (words, out)
        }
    }
    #[inline(always)]
    fn sum_quads(self, [a, b, c, d]: [__m512i; 4]) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe {
            let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
        }
    }
    #[inline(always)]
    fn sum_quarters(self, [a, b, c, d]: [__m512i; 4]) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { halve(halve(a, b), halve(c, d)) }
    }
}
