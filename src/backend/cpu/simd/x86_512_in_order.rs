//! [`InOrder`] for AVX-512.

use super::in_order::{InOrder, InOrderKernel};
use super::wide::Wide;
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

/// b where `upper` says so at this level, a elsewhere.
#[inline(always)]
unsafe fn choose<const K: usize>(
    a: [__m512i; K],
    b: [__m512i; K],
    upper: &[[__mmask32; 4]; K],
    level: usize,
) -> [__m512i; K] {
    let mut out = a;
    for k in 0..K {
        // SAFETY: AVX-512 by the caller's token.
        out[k] = unsafe { _mm512_mask_mov_epi16(a[k], upper[k][level], b[k]) };
    }
    out
}

/// Words out of two lines of a table from `at` on.
#[inline(always)]
unsafe fn first<const N: usize, const K: usize>(
    table: &[[u16; 32]; N],
    at: usize,
    v: [__m512i; K],
) -> [__m512i; K] {
    let mut out = v;
    // SAFETY: AVX-512 by the caller's token; a line is 64 bytes.
    unsafe {
        let low = _mm512_loadu_si512(table[at].as_ptr().cast());
        let high = _mm512_loadu_si512(table[at + 1].as_ptr().cast());
        for k in 0..K {
            out[k] = _mm512_permutex2var_epi16(low, v[k], high);
        }
    }
    out
}

/// Out of eight lines.
#[inline(always)]
unsafe fn fourth<const N: usize, const K: usize>(
    table: &[[u16; 32]; N],
    at: usize,
    v: [__m512i; K],
    upper: &[[__mmask32; 4]; K],
) -> [__m512i; K] {
    // SAFETY: AVX-512 by the caller's token.
    unsafe {
        let a = choose(first(table, at, v), first(table, at + 2, v), upper, 0);
        let b = choose(first(table, at + 4, v), first(table, at + 6, v), upper, 0);
        choose(a, b, upper, 1)
    }
}

/// Out of sixteen lines.
#[inline(always)]
unsafe fn eighth<const N: usize, const K: usize>(
    table: &[[u16; 32]; N],
    at: usize,
    v: [__m512i; K],
    upper: &[[__mmask32; 4]; K],
) -> [__m512i; K] {
    // SAFETY: AVX-512 by the caller's token.
    unsafe { choose(fourth(table, at, v, upper), fourth(table, at + 8, v, upper), upper, 2) }
}

/// Four indices in a general register, where LLVM would take each of them out of v.
#[inline(always)]
fn general(four: i64) -> u64 {
    let mut four = four.cast_unsigned();
    // SAFETY: nothing happens.
    unsafe {
        std::arch::asm!(
            "/* {0} */",
            inout(reg) four,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    four
}

/// v with the word of index LANE % 4 of `four` in lane LANE. LLVM would insert words, which takes
/// two cycles more a word.
///
/// # Safety
/// The CPU has AVX; indices are below 2048.
#[inline(always)]
unsafe fn word<const LANE: usize>(v: __m128i, table: &[u16; 2064], four: u64) -> __m128i {
    let mut v = v;
    // SAFETY: 16 bytes around the word lie in the table, which has eight words more on both sides.
    unsafe {
        std::arch::asm!(
            "vpblendw {v}, {v}, xmmword ptr [{table} + 2 * {at} + {from}], {lane}",
            v = inout(xmm_reg) v,
            table = in(reg) table.as_ptr(),
            at = in(reg) four >> (16 * (LANE % 4)) & 0xffff,
            from = const 2 * (8 - LANE),
            lane = const 1 << LANE,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    v
}

/// Words of eight indices.
///
/// # Safety
/// The CPU has AVX-512; indices are below 2048.
#[inline(always)]
unsafe fn eight(table: &[u16; 2064], v: __m128i) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe {
        let (a, b) = (general(_mm_cvtsi128_si64(v)), general(_mm_extract_epi64::<1>(v)));
        let v = word::<1>(word::<0>(v, table, a), table, a);
        let v = word::<3>(word::<2>(v, table, a), table, a);
        let v = word::<5>(word::<4>(v, table, b), table, b);
        word::<7>(word::<6>(v, table, b), table, b)
    }
}

/// Both halves of a table.
#[inline(always)]
fn halves_of(table: &[u8; 128]) -> [&[u8; 64]; 2] {
    let [low, high] = [0, 64].map(|from| table[from..].first_chunk());
    [low.unwrap_or(&[0; 64]), high.unwrap_or(&[0; 64])]
}

impl InOrder for Avx512 {
    #[inline(always)]
    fn scales16(self, v: __m512i) -> (__m512i, [__m512i; 4]) {
        // SAFETY: the token proves AVX-512; the arrays are as long as what is read.
        unsafe {
            let words = _mm512_cvtepi8_epi16(_mm512_castsi512_si256(v));
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
    #[inline(always)]
    fn splat_16(self, bytes: &[u8; 16]) -> __m512i {
        // SAFETY: the token proves AVX-512; 16 bytes lie in the array.
        unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(bytes.as_ptr().cast())) }
    }
    #[inline(always)]
    fn splat_8(self, bytes: &[u8; 8]) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe { _mm512_set1_epi64(i64::from_le_bytes(*bytes)) }
    }
    #[inline(always)]
    fn widen(self, bytes: &[u8; 32]) -> __m512i {
        // SAFETY: the token proves AVX-512; 32 bytes lie in the array.
        unsafe { _mm512_cvtepu8_epi16(_mm256_loadu_si256(bytes.as_ptr().cast())) }
    }
    #[inline(always)]
    fn pick(self, v: __m512i, index: &[u8; 64]) -> __m512i {
        // SAFETY: the token proves AVX-512 VBMI.
        unsafe { _mm512_permutexvar_epi8(self.load_b(index), v) }
    }
    #[inline(always)]
    fn pick_256(self, [a, b, c, d]: [__m512i; 4], index: &[u8; 64]) -> __m512i {
        let index = self.load_b(index);
        // SAFETY: the token proves AVX-512 VBMI.
        unsafe {
            let low = _mm512_permutex2var_epi8(a, index, b);
            let high = _mm512_permutex2var_epi8(c, index, d);
            _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(index), high)
        }
    }
    #[inline(always)]
    fn bits_from(self, v: __m512i, at: &[u8; 64]) -> __m512i {
        // SAFETY: the token proves AVX-512 VBMI.
        unsafe { _mm512_multishift_epi64_epi8(self.load_b(at), v) }
    }
    #[inline(always)]
    fn look_up_64(self, table: &[u8; 64], v: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512 VBMI.
        unsafe { _mm512_permutexvar_epi8(v, self.load_b(table)) }
    }
    #[inline(always)]
    fn look_up_128(self, table: &[u8; 128], v: __m512i) -> __m512i {
        let [low, high] = halves_of(table);
        // SAFETY: the token proves AVX-512 VBMI.
        unsafe { _mm512_permutex2var_epi8(self.load_b(low), v, self.load_b(high)) }
    }
    #[inline(always)]
    fn look_up_256(self, table: &[u8; 256], v: __m512i) -> __m512i {
        let [[a, b], [c, d]] =
            [0, 128].map(|from| halves_of(table[from..].first_chunk().unwrap_or(&[0; 128])));
        // SAFETY: the token proves AVX-512 VBMI.
        unsafe {
            let low = _mm512_permutex2var_epi8(self.load_b(a), v, self.load_b(b));
            let high = _mm512_permutex2var_epi8(self.load_b(c), v, self.load_b(d));
            _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(v), high)
        }
    }
    /// Words are read one by one into their places: out of registers, table and all, as
    /// [`InOrder::look_up_words`] does, these many take as long as all the rest together.
    #[inline(always)]
    fn look_up_2048(self, table: &[u16; 2064], v: __m512i) -> __m512i {
        // SAFETY: the token proves AVX-512; indices have eleven bits.
        unsafe {
            let v = _mm512_and_si512(v, _mm512_set1_epi16(2047));
            let low = _mm256_set_m128i(
                eight(table, _mm512_extracti32x4_epi32::<1>(v)),
                eight(table, _mm512_castsi512_si128(v)),
            );
            let high = _mm256_set_m128i(
                eight(table, _mm512_extracti32x4_epi32::<3>(v)),
                eight(table, _mm512_extracti32x4_epi32::<2>(v)),
            );
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        }
    }
    #[inline(always)]
    fn look_up_words<const N: usize, const K: usize>(
        self,
        table: &[[u16; 32]; N],
        v: [__m512i; K],
    ) -> [__m512i; K] {
        let mut upper = [[0; 4]; K];
        for k in 0..K {
            for (bit, upper) in upper[k].iter_mut().enumerate() {
                // SAFETY: the token proves AVX-512 BW.
                *upper = unsafe { _mm512_test_epi16_mask(v[k], _mm512_set1_epi16(64 << bit)) };
            }
        }
        // SAFETY: the token proves AVX-512 BW; the parts lie in the table.
        unsafe {
            match N {
                8 => fourth(table, 0, v, &upper),
                16 => eighth(table, 0, v, &upper),
                _ => {
                    let (low, high) = (eighth(table, 0, v, &upper), eighth(table, 16, v, &upper));
                    choose(low, high, &upper, 3)
                }
            }
        }
    }
    #[inline(always)]
    fn negate_where(self, x: __m512i, signs: __m512i, bits: &[u8; 64]) -> __m512i {
        // SAFETY: the token proves AVX-512.
        unsafe {
            let negative = _mm512_test_epi8_mask(signs, self.load_b(bits));
            _mm512_mask_sub_epi8(x, negative, _mm512_setzero_si512(), x)
        }
    }
    #[inline(always)]
    fn as_i(self, v: __m512i) -> __m512i {
        v
    }
    #[inline(always)]
    fn as_b(self, v: __m512i) -> __m512i {
        v
    }
}
