//! [`Wide`] for AVX2 and AVX-VNNI: 64 bytes or sixteen i32 in two registers. The two differ in how
//! they add products of bytes and of words.

use super::wide::{Wide, byte_pairs, quad_of, word_pair};
use super::x86::{Avx2, AvxVnni};
use std::arch::x86_64::*;

type Pair = [__m256i; 2];

/// A one in every byte.
const ONES: u128 = u128::MAX / 255;

/// Loads 32 bytes.
#[inline(always)]
unsafe fn load(p: *const u8) -> __m256i {
    // SAFETY: the caller has AVX2 and 32 readable bytes.
    unsafe { _mm256_loadu_si256(p.cast()) }
}

/// The parts that AVX2 and AVX-VNNI share.
macro_rules! wide {
    ($tier:ty, $signed:expr, $dot_words:expr, $dot_bytes:expr) => {
        impl Wide for $tier {
            type B = Pair;
            type I = Pair;
            const SIGNED_QUADS: bool = $signed;

            #[inline(always)]
            fn load_b(self, p: &[u8; 64]) -> Pair {
                // SAFETY: the token proves AVX2; both halves lie in the array.
                unsafe { [load(p.as_ptr()), load(p.as_ptr().add(32))] }
            }
            #[inline(always)]
            fn store_b(self, v: Pair, p: &mut [u8; 64]) {
                let p = p.as_mut_ptr();
                // SAFETY: the token proves AVX2; both halves lie in the array.
                unsafe {
                    _mm256_storeu_si256(p.cast(), v[0]);
                    _mm256_storeu_si256(p.add(32).cast(), v[1]);
                }
            }
            #[inline(always)]
            fn store_halves(self, v: Pair, a: &mut [u8; 32], b: &mut [u8; 32]) {
                // SAFETY: the token proves AVX2; the arrays are 32 bytes long.
                unsafe {
                    _mm256_storeu_si256(a.as_mut_ptr().cast(), v[0]);
                    _mm256_storeu_si256(b.as_mut_ptr().cast(), v[1]);
                }
            }
            #[inline(always)]
            fn load_x(self, p: &[i8; 64]) -> Pair {
                // SAFETY: the token proves AVX2; both halves lie in the array.
                unsafe { [load(p.as_ptr().cast()), load(p.as_ptr().add(32).cast())] }
            }
            #[inline(always)]
            fn join(self, a: &[u8; 32], b: &[u8; 32]) -> Pair {
                // SAFETY: the token proves AVX2; the arrays are 32 bytes long.
                unsafe { [load(a.as_ptr()), load(b.as_ptr())] }
            }
            #[inline(always)]
            fn join_x(self, a: &[i8; 32], b: &[i8; 32]) -> Pair {
                // SAFETY: the token proves AVX2; the arrays are 32 bytes long.
                unsafe { [load(a.as_ptr().cast()), load(b.as_ptr().cast())] }
            }
            #[inline(always)]
            fn nibbles(self, a: &[u8; 16], b: &[u8; 16]) -> Pair {
                // SAFETY: the token proves AVX2; the arrays are 16 bytes long.
                unsafe {
                    let mask = _mm256_set1_epi8(15);
                    [a, b].map(|p| {
                        let v = _mm_loadu_si128(p.as_ptr().cast());
                        _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16::<4>(v), v), mask)
                    })
                }
            }
            #[inline(always)]
            fn splat_b(self, x: u8) -> Pair {
                // SAFETY: the token proves AVX2.
                unsafe { [_mm256_set1_epi8(x.cast_signed()); 2] }
            }
            #[inline(always)]
            fn and_b(self, a: Pair, b: Pair) -> Pair {
                // SAFETY: the token proves AVX2.
                unsafe { [_mm256_and_si256(a[0], b[0]), _mm256_and_si256(a[1], b[1])] }
            }
            #[inline(always)]
            fn or_b(self, a: Pair, b: Pair) -> Pair {
                // SAFETY: the token proves AVX2.
                unsafe { [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])] }
            }
            #[inline(always)]
            fn flip_sign(self, v: Pair) -> Pair {
                // SAFETY: the token proves AVX2.
                unsafe {
                    let sign = _mm256_set1_epi8(-128);
                    [_mm256_xor_si256(v[0], sign), _mm256_xor_si256(v[1], sign)]
                }
            }
            #[inline(always)]
            fn spread_bits(self, bits: u64) -> Pair {
                // SAFETY: the token proves AVX2.
                unsafe {
                    let byte = _mm256_set_epi64x(
                        0x0303_0303_0303_0303,
                        0x0202_0202_0202_0202,
                        0x0101_0101_0101_0101,
                        0,
                    );
                    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201u64.cast_signed());
                    [bits as u32, (bits >> 32) as u32].map(|word| {
                        let word = _mm256_set1_epi32(word.cast_signed());
                        let byte = _mm256_shuffle_epi8(word, byte);
                        _mm256_cmpeq_epi8(_mm256_and_si256(byte, bit), bit)
                    })
                }
            }
            #[inline(always)]
            fn shr_b<const N: u32>(self, v: Pair) -> Pair {
                // SAFETY: the token proves AVX2.
                unsafe {
                    let n = _mm_cvtsi32_si128(N.cast_signed());
                    [_mm256_srl_epi16(v[0], n), _mm256_srl_epi16(v[1], n)]
                }
            }
            #[inline(always)]
            fn shl_b<const N: u32>(self, v: Pair) -> Pair {
                // SAFETY: the token proves AVX2.
                unsafe {
                    let n = _mm_cvtsi32_si128(N.cast_signed());
                    [_mm256_sll_epi16(v[0], n), _mm256_sll_epi16(v[1], n)]
                }
            }
            #[inline(always)]
            fn join_words(self, words: [u64; 8]) -> Pair {
                let [a, b, c, d, e, f, g, h] = words.map(u64::cast_signed);
                // SAFETY: the token proves AVX2.
                unsafe { [_mm256_set_epi64x(d, c, b, a), _mm256_set_epi64x(h, g, f, e)] }
            }
            #[inline(always)]
            fn add_b(self, a: Pair, b: Pair) -> Pair {
                // SAFETY: the token proves AVX2.
                unsafe { [_mm256_add_epi8(a[0], b[0]), _mm256_add_epi8(a[1], b[1])] }
            }
            #[inline(always)]
            fn negate(self, v: Pair, bits: u64) -> Pair {
                let m = self.spread_bits(bits);
                // SAFETY: the token proves AVX2.
                unsafe {
                    let (a, b) = (_mm256_xor_si256(v[0], m[0]), _mm256_xor_si256(v[1], m[1]));
                    [_mm256_sub_epi8(a, m[0]), _mm256_sub_epi8(b, m[1])]
                }
            }
            #[inline(always)]
            fn look_up(self, table: &[u8; 16], nibbles: Pair) -> Pair {
                // SAFETY: the token proves AVX2; 16 bytes lie in the table.
                unsafe {
                    let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
                    let lo = _mm256_shuffle_epi8(table, nibbles[0]);
                    [lo, _mm256_shuffle_epi8(table, nibbles[1])]
                }
            }
            #[inline(always)]
            fn shr_second<const N: u32>(self, v: Pair) -> Pair {
                // SAFETY: the token proves AVX2.
                unsafe { [v[0], _mm256_srl_epi16(v[1], _mm_cvtsi32_si128(N.cast_signed()))] }
            }
            #[inline(always)]
            fn pick16(self, bytes: &[i8; 16], index: &[u8; 64]) -> Pair {
                let index = self.load_b(index);
                // SAFETY: the token proves AVX2; 16 bytes lie in the array.
                unsafe {
                    let bytes = _mm256_broadcastsi128_si256(_mm_loadu_si128(bytes.as_ptr().cast()));
                    let lo = _mm256_shuffle_epi8(bytes, index[0]);
                    let hi = _mm256_shuffle_epi8(bytes, index[1]);
                    [_mm256_srai_epi16::<8>(lo), _mm256_srai_epi16::<8>(hi)]
                }
            }
            #[inline(always)]
            fn zero_i(self) -> Pair {
                // SAFETY: the token proves AVX2.
                unsafe { [_mm256_setzero_si256(); 2] }
            }
            #[inline(always)]
            fn splat_quad(self, codes: &[u8; 4]) -> Pair {
                // SAFETY: the token proves AVX2.
                unsafe { [_mm256_set1_epi32(i32::from_le_bytes(*codes)); 2] }
            }
            #[inline(always)]
            fn splat_i(self, x: i32) -> Pair {
                // SAFETY: the token proves AVX2.
                unsafe { [_mm256_set1_epi32(x); 2] }
            }
            #[inline(always)]
            fn splat_words(self, words: &[i16; 16], index: usize) -> Pair {
                // SAFETY: the token proves AVX2.
                unsafe { [_mm256_set1_epi32(word_pair(words, index)); 2] }
            }
            #[inline(always)]
            fn load_i(self, p: &[i32; 16]) -> Pair {
                // SAFETY: the token proves AVX2; both halves lie in the array.
                unsafe { [load(p.as_ptr().cast()), load(p.as_ptr().add(8).cast())] }
            }
            #[inline(always)]
            fn mul_add_i(self, acc: Pair, a: Pair, b: Pair) -> Pair {
                // SAFETY: the token proves AVX2.
                unsafe {
                    let (lo, hi) = (_mm256_mullo_epi32(a[0], b[0]), _mm256_mullo_epi32(a[1], b[1]));
                    [_mm256_add_epi32(acc[0], lo), _mm256_add_epi32(acc[1], hi)]
                }
            }
            #[inline(always)]
            fn dot_words(self, acc: Pair, a: Pair, b: Pair) -> Pair {
                // SAFETY: the token proves the features of the tier.
                unsafe { [$dot_words(acc[0], a[0], b[0]), $dot_words(acc[1], a[1], b[1])] }
            }
            #[inline(always)]
            fn dot_quads<const OFFSET: u8>(self, acc: Pair, codes: Pair, x: Pair) -> Pair {
                // SAFETY: the token proves the features of the tier.
                unsafe {
                    let mut acc = acc;
                    for i in 0..2 {
                        acc[i] = if OFFSET == 128 && $signed {
                            let w = _mm256_xor_si256(codes[i], _mm256_set1_epi8(-128));
                            let x = _mm256_sign_epi8(x[i], w);
                            $dot_bytes(acc[i], _mm256_abs_epi8(w), x)
                        } else {
                            $dot_bytes(acc[i], codes[i], x[i])
                        };
                    }
                    acc
                }
            }
            #[inline(always)]
            unsafe fn words(self, rows: &[*const u8; 16], at: usize) -> [Pair; 4] {
                let mut out = [self.zero_i(); 4];
                for h in 0..2 {
                    // SAFETY: the token proves AVX2; the caller promises 16 bytes a pointer.
                    unsafe {
                        let two = |i: usize| {
                            let a = _mm_loadu_si128(rows[8 * h + i].add(at).cast());
                            let b = _mm_loadu_si128(rows[8 * h + i + 4].add(at).cast());
                            _mm256_set_m128i(b, a)
                        };
                        let v = [two(0), two(1), two(2), two(3)];
                        let a = _mm256_unpacklo_epi32(v[0], v[1]);
                        let b = _mm256_unpackhi_epi32(v[0], v[1]);
                        let c = _mm256_unpacklo_epi32(v[2], v[3]);
                        let d = _mm256_unpackhi_epi32(v[2], v[3]);
                        out[0][h] = _mm256_unpacklo_epi64(a, c);
                        out[1][h] = _mm256_unpackhi_epi64(a, c);
                        out[2][h] = _mm256_unpacklo_epi64(b, d);
                        out[3][h] = _mm256_unpackhi_epi64(b, d);
                    }
                }
                out
            }
            #[inline(always)]
            fn dot_x<const OFFSET: u8, const QUAD: usize>(
                self,
                acc: Pair,
                codes: Pair,
                x: &[i8; 32],
            ) -> Pair {
                let x = quad_of(x, QUAD);
                // SAFETY: the token proves AVX2.
                self.dot_quads::<OFFSET>(acc, codes, unsafe { [_mm256_set1_epi32(x); 2] })
            }
            #[inline(always)]
            fn sub_b(self, a: Pair, b: Pair) -> Pair {
                // SAFETY: the token proves AVX2.
                unsafe { [_mm256_sub_epi8(a[0], b[0]), _mm256_sub_epi8(a[1], b[1])] }
            }
            #[inline(always)]
            fn byte<const N: u32, const SIGNED: bool>(self, v: Pair) -> Pair {
                // SAFETY: the token proves AVX2.
                unsafe {
                    let mut v = v;
                    for v in &mut v {
                        *v = if SIGNED {
                            let n = _mm256_set1_epi32(24 - 8 * N.cast_signed());
                            _mm256_srai_epi32::<24>(_mm256_sllv_epi32(*v, n))
                        } else {
                            let n = _mm256_set1_epi32(8 * N.cast_signed());
                            _mm256_and_si256(_mm256_srlv_epi32(*v, n), _mm256_set1_epi32(255))
                        };
                    }
                    v
                }
            }
            #[inline(always)]
            fn byte_pair<const N: u8, const SIGNED: bool>(self, v: Pair) -> Pair {
                let index = byte_pairs::<N, SIGNED>();
                // SAFETY: the token proves AVX2; 16 bytes lie in the array.
                unsafe {
                    let index = _mm_loadu_si128(index.as_ptr().cast());
                    let index = _mm256_broadcastsi128_si256(index);
                    let mut v = v;
                    for v in &mut v {
                        let words = _mm256_shuffle_epi8(*v, index);
                        *v = if SIGNED { _mm256_srai_epi16::<8>(words) } else { words };
                    }
                    v
                }
            }
            #[inline(always)]
            fn half_of<const HIGH: bool>(self, v: Pair) -> [__m256; 2] {
                // SAFETY: the token proves AVX2 and F16C.
                unsafe {
                    let mut v = v;
                    for v in &mut v {
                        let low = _mm256_and_si256(*v, _mm256_set1_epi32(0xffff));
                        *v = if HIGH { _mm256_srli_epi32::<16>(*v) } else { low };
                    }
                    let all = _mm256_packus_epi32(v[0], v[1]);
                    let all = _mm256_permute4x64_epi64::<0b1101_1000>(all);
                    let upper = _mm256_extracti128_si256::<1>(all);
                    [_mm256_cvtph_ps(_mm256_castsi256_si128(all)), _mm256_cvtph_ps(upper)]
                }
            }
            #[inline(always)]
            fn fifth_bits(self, bits: Pair, quad: usize) -> Pair {
                let byte = 0x0c0c_0c0c_0808_0808_0404_0404_0000_0000 | (quad as u128 / 2 * ONES);
                let bit = 0x0804_0201 << (quad % 2 * 4);
                // SAFETY: the token proves AVX2; 16 bytes lie in a u128.
                unsafe {
                    let byte = _mm_loadu_si128((&raw const byte).cast());
                    let (byte, bit) = (_mm256_broadcastsi128_si256(byte), _mm256_set1_epi32(bit));
                    let mut v = bits;
                    for v in &mut v {
                        let chosen = _mm256_and_si256(_mm256_shuffle_epi8(*v, byte), bit);
                        *v = _mm256_cmpeq_epi8(chosen, bit);
                    }
                    v
                }
            }
            #[inline(always)]
            fn add_i(self, a: Pair, b: Pair) -> Pair {
                // SAFETY: the token proves AVX2.
                unsafe { [_mm256_add_epi32(a[0], b[0]), _mm256_add_epi32(a[1], b[1])] }
            }
            #[inline(always)]
            fn prefetch_second(self, p: *const u8) {
                // SAFETY: a hint; no memory is accessed as far as the program can tell.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) };
            }
            #[inline(always)]
            fn to_f(self, v: Pair) -> [__m256; 2] {
                // SAFETY: the token proves AVX2.
                unsafe { [_mm256_cvtepi32_ps(v[0]), _mm256_cvtepi32_ps(v[1])] }
            }
            #[inline(always)]
            fn fnma(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
                // SAFETY: the token proves FMA.
                unsafe { [_mm256_fnmadd_ps(a[0], b[0], c[0]), _mm256_fnmadd_ps(a[1], b[1], c[1])] }
            }
            #[inline(always)]
            fn shl_i<const N: u32>(self, v: Pair) -> Pair {
                // SAFETY: the token proves AVX2.
                unsafe {
                    let n = _mm_cvtsi32_si128(N.cast_signed());
                    [_mm256_sll_epi32(v[0], n), _mm256_sll_epi32(v[1], n)]
                }
            }
            #[inline(always)]
            fn sub_shl<const N: u32>(self, a: Pair, b: Pair) -> Pair {
                // SAFETY: the token proves AVX2.
                unsafe {
                    let shifted = self.shl_i::<N>(b);
                    [_mm256_sub_epi32(a[0], shifted[0]), _mm256_sub_epi32(a[1], shifted[1])]
                }
            }
            #[inline(always)]
            fn dot_scaled_b(self, acc: Pair, codes: Pair, x: Pair, scales: Pair) -> Pair {
                // SAFETY: the token proves the features of the tier.
                unsafe {
                    let lo = _mm256_maddubs_epi16(codes[0], x[0]);
                    let hi = _mm256_maddubs_epi16(codes[1], x[1]);
                    [$dot_words(acc[0], lo, scales[0]), $dot_words(acc[1], hi, scales[1])]
                }
            }
            #[inline(always)]
            fn dot_scaled_signed(self, acc: Pair, codes: Pair, x: Pair, scales: Pair) -> Pair {
                let w = self.flip_sign(codes);
                // SAFETY: the token proves AVX2.
                unsafe {
                    let x = [_mm256_sign_epi8(x[0], w[0]), _mm256_sign_epi8(x[1], w[1])];
                    let w = [_mm256_abs_epi8(w[0]), _mm256_abs_epi8(w[1])];
                    self.dot_scaled_b(acc, w, x, scales)
                }
            }
            #[inline(always)]
            fn reduce_halves(self, v: [Pair; 4]) -> [[i32; 4]; 2] {
                let mut out = [[0; 4]; 2];
                for (half, out) in out.iter_mut().enumerate() {
                    // SAFETY: the token proves AVX2; 16 bytes lie in the array.
                    unsafe {
                        let a = _mm256_hadd_epi32(v[0][half], v[1][half]);
                        let b = _mm256_hadd_epi32(v[2][half], v[3][half]);
                        let sum = _mm256_hadd_epi32(a, b);
                        let high = _mm256_extracti128_si256::<1>(sum);
                        let sum = _mm_add_epi32(_mm256_castsi256_si128(sum), high);
                        _mm_storeu_si128(out.as_mut_ptr().cast(), sum);
                    }
                }
                out
            }
        }
    };
}

/// acc + a * b summed by pairs.
#[inline(always)]
unsafe fn words_avx2(acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(a, b)) }
}

/// acc + a * b summed by fours; a at most 128.
#[inline(always)]
unsafe fn bytes_avx2(acc: __m256i, a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: the caller has AVX2.
    unsafe {
        let sum = _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1));
        _mm256_add_epi32(acc, sum)
    }
}

wide!(Avx2, true, words_avx2, bytes_avx2);
wide!(AvxVnni, false, _mm256_dpwssd_avx_epi32, _mm256_dpbusd_avx_epi32);
