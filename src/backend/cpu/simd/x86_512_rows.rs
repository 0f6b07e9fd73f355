//! Four rows of Q4_K or Q5_K times one row of activations, for AVX-512: what the one-row kernel of
//! `kernel::matvec` does, with the headers of four blocks taken apart in one register.
//!
//! ```text
//! lane r: d dmin (f16) | a | m | h   (words of 4 bytes)
//!   scales 0..4 = a & 63,                mins 0..4 = m & 63
//!   scales 4..8 = h & 15 | a >> 2 & 48,  mins 4..8 = h >> 4 & 15 | m >> 2 & 48
//! ```
//! Measured on Zen 4 with two threads: 31 GB/s row by row of headers, 45 so.

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

/// For a shuffle: bytes `a` (first half) and `b` of the upper eight of a lane, as words.
const fn two(a: u8, b: u8) -> [u8; 64] {
    let mut index = [128; 64];
    let mut i = 0;
    while i < 64 {
        index[i] = 8 + if i < 32 { a } else { b };
        i += 2;
    }
    index
}

static PICK: [[u8; 64]; 4] = [two(0, 2), two(1, 3), two(4, 6), two(5, 7)];

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
        let mut pick = [_mm512_setzero_si512(); 4];
        for v in 0..4 {
            pick[v] = _mm512_loadu_si512(PICK[v].as_ptr().cast());
        }
        let first = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 8, 4, 0);
        let (mask, fifth) = (_mm512_set1_epi8(15), _mm512_set1_epi8(16));
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
            let x = activations(input.qs.as_ptr().add(b).cast());
            let mut t = [_mm512_setzero_si512(); 4];
            for r in 0..4 {
                let scales = match r {
                    0 => _mm512_shuffle_i32x4::<0x00>(scales, scales),
                    1 => _mm512_shuffle_i32x4::<0x55>(scales, scales),
                    2 => _mm512_shuffle_i32x4::<0xaa>(scales, scales),
                    _ => _mm512_shuffle_i32x4::<0xff>(scales, scales),
                };
                let p = _mm512_loadu_si512(block[r].add(codes_at).cast());
                let q = _mm512_loadu_si512(block[r].add(codes_at + 64).cast());
                let p4 = _mm512_and_si512(_mm512_srli_epi16::<4>(p), mask);
                let q4 = _mm512_and_si512(_mm512_srli_epi16::<4>(q), mask);
                let mut codes = [_mm512_and_si512(p, mask), p4, _mm512_and_si512(q, mask), q4];
                if FIFTH {
                    let h = _mm256_loadu_si256(block[r].add(16).cast());
                    let h = _mm512_inserti64x4::<1>(
                        _mm512_castsi256_si512(h),
                        _mm256_srli_epi16::<2>(h),
                    );
                    let high = [
                        _mm512_slli_epi16::<4>(h),
                        _mm512_slli_epi16::<3>(h),
                        h,
                        _mm512_srli_epi16::<1>(h),
                    ];
                    for v in 0..4 {
                        // (high & fifth) | codes
                        codes[v] = _mm512_ternarylogic_epi64::<0xea>(high[v], fifth, codes[v]);
                    }
                }
                for v in 0..4 {
                    let words = _mm512_maddubs_epi16(codes[v], x[v]);
                    t[r] = _mm512_dpwssd_epi32(t[r], words, _mm512_shuffle_epi8(scales, pick[v]));
                }
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

/// 256 activations in the order of the nibbles: sub-blocks 0 2, 1 3, 4 6, 5 7.
#[inline(always)]
unsafe fn activations(x: *const u8) -> [__m512i; 4] {
    // SAFETY: the caller has AVX-512 and 256 readable bytes.
    unsafe {
        let mut out = [_mm512_setzero_si512(); 4];
        for (v, at) in [0, 32, 128, 160].into_iter().enumerate() {
            let a = _mm512_castsi256_si512(_mm256_loadu_si256(x.add(at).cast()));
            out[v] = _mm512_inserti64x4::<1>(a, _mm256_loadu_si256(x.add(at + 64).cast()));
        }
        out
    }
}

/// Sums of the lanes of four vectors.
#[inline(always)]
unsafe fn sum4(t: [__m512i; 4]) -> __m128i {
    // SAFETY: the caller has AVX-512.
    unsafe {
        let (a, b) = (_mm512_unpacklo_epi32(t[0], t[1]), _mm512_unpacklo_epi32(t[2], t[3]));
        let a = _mm512_add_epi32(a, _mm512_unpackhi_epi32(t[0], t[1]));
        let b = _mm512_add_epi32(b, _mm512_unpackhi_epi32(t[2], t[3]));
        let s = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
        let s = _mm256_add_epi32(_mm512_castsi512_si256(s), _mm512_extracti64x4_epi64::<1>(s));
        _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256::<1>(s))
    }
}
