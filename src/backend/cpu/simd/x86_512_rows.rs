//! Four rows of Q4_K or Q5_K times one row of activations, for AVX-512: what the one-row kernel of
//! `kernel::matvec` does, with the headers of four blocks taken apart in one register.
//!
//! ```text
//! lane r: d dmin (f16) | a | m | h   (words of 4 bytes)
//!   scales 0..4 = a & 63,                mins 0..4 = m & 63
//!   scales 4..8 = h & 15 | a >> 2 & 48,  mins 4..8 = h >> 4 & 15 | m >> 2 & 48
//! ```
//! Codes go in 256 bits, a sub-block a register, so that its scale is a broadcast from memory; in
//! 512 bits scales cost a shuffle for every 64 codes (20 cycles a block on Zen 4).

use std::arch::x86_64::*;

/// Bytes ahead of a stream that are asked for.
const AHEAD: usize = 2048;

/// Four weight rows and one row of activations of `n_blocks` blocks.
pub struct Rows<'a> {
    /// Weight rows.
    pub rows: [&'a [u8]; 4],
    /// `[n_blocks, 256]`.
    pub qs: &'a [[i8; 256]],
    /// `[n_blocks, 16]`.
    pub sums: &'a [[i16; 16]],
    /// `[n_blocks]`.
    pub ds: &'a [f32],
}

/// Eight scales of a row, each as two equal words, in two groups of four: `[group][row][4]`.
#[repr(C, align(64))]
struct Scales([[[i32; 4]; 4]; 2]);

/// The four results.
///
/// # Safety
/// The CPU has AVX-512 F, BW, VL and VNNI, and F16C; each row has `qs.len()` blocks of 144 bytes
/// (176 with a fifth bit), `sums` and `ds` are as long as `qs`.
#[inline(always)]
pub unsafe fn nibble_rows<const FIFTH: bool>(input: &Rows<'_>) -> [f32; 4] {
    let (size, codes_at) = if FIFTH { (176, 48) } else { (144, 16) };
    let n = input.qs.len();
    let mut out = [0.0; 4];
    // SAFETY: the caller promises the features; blocks of 4 rows, 256 bytes of `qs`, 32 of `sums`
    // and one of `ds` exist for every b below n; prefetches access nothing.
    unsafe {
        let first = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 8, 4, 0);
        let mask = _mm512_set1_epi8(15);
        let shift = _mm512_set4_epi32(0, 4, 0, 0);
        let mut acc = _mm_setzero_ps();
        for b in 0..n {
            let block = [
                input.rows[0].as_ptr().add(b * size),
                input.rows[1].as_ptr().add(b * size),
                input.rows[2].as_ptr().add(b * size),
                input.rows[3].as_ptr().add(b * size),
            ];
            for p in block {
                for line in 0..size.div_ceil(64) {
                    _mm_prefetch::<_MM_HINT_T0>(p.wrapping_add(AHEAD + 64 * line).cast());
                }
            }
            let head = header(block);
            let low = _mm512_and_si512(head, _mm512_set1_epi8(63));
            let h = _mm512_shuffle_epi32::<0b00_11_11_00>(head);
            let h = _mm512_and_si512(_mm512_srlv_epi32(h, shift), mask);
            let upper = _mm512_and_si512(_mm512_srli_epi32::<2>(head), _mm512_set1_epi8(48));
            let high = _mm512_or_si512(h, upper);
            let scales = _mm512_unpacklo_epi32(low, high);
            let mins = _mm512_unpackhi_epi32(low, high);
            let mins = _mm512_unpacklo_epi8(mins, _mm512_setzero_si512());
            let sums = _mm256_loadu_si256(input.sums.as_ptr().add(b).cast());
            let sums = _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
            let sums = _mm512_broadcast_i32x4(_mm256_cvtepi32_epi16(sums));
            let m = _mm512_madd_epi16(mins, sums);
            let m = _mm512_add_epi32(m, _mm512_shuffle_epi32::<0b01_00_11_10>(m));
            let m = _mm512_add_epi32(m, _mm512_shuffle_epi32::<0b10_11_00_01>(m));
            let m = _mm512_castsi512_si128(_mm512_permutexvar_epi32(first, m));
            // Scales as pairs of words in memory: each is then a broadcast operand, and no shuffle.
            let words = _mm512_unpackhi_epi8(scales, _mm512_setzero_si512());
            let mut pairs = Scales([[[0; 4]; 4]; 2]);
            let to = pairs.0.as_mut_ptr();
            _mm512_storeu_si512(to.cast(), _mm512_unpacklo_epi16(words, words));
            _mm512_storeu_si512(to.add(1).cast(), _mm512_unpackhi_epi16(words, words));
            let x = input.qs.as_ptr().add(b).cast::<u8>();
            let mut t = [_mm256_setzero_si256(); 4];
            for r in 0..4 {
                t[r] = row::<FIFTH>(block[r], codes_at, x, [pairs.0[0][r], pairs.0[1][r]]);
            }
            let dd = _mm512_castsi512_si128(_mm512_permutexvar_epi32(first, head));
            let d = _mm_cvtph_ps(_mm_cvtepi32_epi16(dd));
            let dmin = _mm_cvtph_ps(_mm_cvtepi32_epi16(_mm_srli_epi32::<16>(dd)));
            let v = _mm_mul_ps(_mm_cvtepi32_ps(sum4(t)), d);
            let v = _mm_fnmadd_ps(_mm_cvtepi32_ps(m), dmin, v);
            acc = _mm_fmadd_ps(v, _mm_set1_ps(*input.ds.get_unchecked(b)), acc);
        }
        _mm_storeu_ps(out.as_mut_ptr(), acc);
    }
    out
}

/// The first 16 bytes of four blocks.
#[inline(always)]
unsafe fn header(block: [*const u8; 4]) -> __m512i {
    // SAFETY: the caller has AVX-512 and four readable blocks.
    unsafe {
        let v = _mm512_castsi128_si512(_mm_loadu_si128(block[0].cast()));
        let v = _mm512_inserti32x4::<1>(v, _mm_loadu_si128(block[1].cast()));
        let v = _mm512_inserti32x4::<2>(v, _mm_loadu_si128(block[2].cast()));
        _mm512_inserti32x4::<3>(v, _mm_loadu_si128(block[3].cast()))
    }
}

/// Lanes of T of one block.
#[inline(always)]
unsafe fn row<const FIFTH: bool>(
    block: *const u8,
    codes_at: usize,
    x: *const u8,
    scales: [[i32; 4]; 2],
) -> __m256i {
    // SAFETY: the caller has AVX-512, a whole block and 256 readable bytes of x.
    unsafe {
        let (mask, fifth) = (_mm256_set1_epi8(15), _mm256_set1_epi8(16));
        let mut high = [_mm256_setzero_si256(); 8];
        if FIFTH {
            let h = _mm256_loadu_si256(block.add(16).cast());
            high = [
                _mm256_slli_epi16::<4>(h),
                _mm256_slli_epi16::<3>(h),
                _mm256_slli_epi16::<2>(h),
                _mm256_slli_epi16::<1>(h),
                h,
                _mm256_srli_epi16::<1>(h),
                _mm256_srli_epi16::<2>(h),
                _mm256_srli_epi16::<3>(h),
            ];
        }
        let mut t = [_mm256_setzero_si256(); 2];
        for g in 0..4 {
            let q = _mm256_loadu_si256(block.add(codes_at + 32 * g).cast());
            let mut codes =
                [_mm256_and_si256(q, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(q), mask)];
            for e in 0..2 {
                let s = 2 * g + e;
                if FIFTH {
                    // (high & fifth) | codes
                    codes[e] = _mm256_ternarylogic_epi64::<0xea>(high[s], fifth, codes[e]);
                }
                let x = _mm256_loadu_si256(x.add(32 * s).cast());
                let scale = _mm256_set1_epi32(scales[s / 4][s % 4]);
                t[e] = _mm256_dpwssd_epi32(t[e], _mm256_maddubs_epi16(codes[e], x), scale);
            }
        }
        _mm256_add_epi32(t[0], t[1])
    }
}

/// Sums of the lanes of four vectors.
#[inline(always)]
unsafe fn sum4(t: [__m256i; 4]) -> __m128i {
    // SAFETY: the caller has AVX2.
    unsafe {
        let (a, b) = (_mm256_unpacklo_epi32(t[0], t[1]), _mm256_unpacklo_epi32(t[2], t[3]));
        let a = _mm256_add_epi32(a, _mm256_unpackhi_epi32(t[0], t[1]));
        let b = _mm256_add_epi32(b, _mm256_unpackhi_epi32(t[2], t[3]));
        let s = _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
        _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256::<1>(s))
    }
}
