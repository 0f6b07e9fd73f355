//! What the fast integer kernels need beyond [`Simd`]: vectors of 64 bytes and of 16 i32, in as
//! many registers as the tier takes for that. All of it is exact; the portable tier does without.

use super::Simd;

/// A tier with fast integer kernels.
pub trait Wide: Simd {
    /// Whether `dot_quads::<128>` subtracts 128 from codes. If not, it takes any bytes as they are.
    const SIGNED_QUADS: bool;
    /// 64 bytes.
    type B: Copy;
    /// Sixteen i32.
    type I: Copy;

    /// Bytes from memory.
    fn load_b(self, p: &[u8; 64]) -> Self::B;
    /// Bytes to memory.
    fn store_b(self, v: Self::B, p: &mut [u8; 64]);
    /// Two halves to memory.
    fn store_halves(self, v: Self::B, a: &mut [u8; 32], b: &mut [u8; 32]);
    /// Activations from memory.
    fn load_x(self, p: &[i8; 64]) -> Self::B;
    /// Four bytes of codes everywhere.
    fn splat_quad(self, codes: &[u8; 4]) -> Self::B;
    /// Two halves.
    fn join(self, a: &[u8; 32], b: &[u8; 32]) -> Self::B;
    /// Two halves of activations.
    fn join_x(self, a: &[i8; 32], b: &[i8; 32]) -> Self::B;
    /// The low nibbles of a, its high ones, then those of b.
    fn nibbles(self, a: &[u8; 16], b: &[u8; 16]) -> Self::B;
    /// Every byte `x`.
    fn splat_b(self, x: u8) -> Self::B;
    /// Bits of both.
    fn and_b(self, a: Self::B, b: Self::B) -> Self::B;
    /// Bits of either.
    fn or_b(self, a: Self::B, b: Self::B) -> Self::B;
    /// Bytes plus 128: signed codes to unsigned ones.
    fn flip_sign(self, v: Self::B) -> Self::B;
    /// Bit i of the word in every bit of byte i.
    fn spread_bits(self, bits: u64) -> Self::B;
    /// Eight bytes from each word.
    fn join_words(self, words: [u64; 8]) -> Self::B;
    /// a + b, byte by byte.
    fn add_b(self, a: Self::B, b: Self::B) -> Self::B;
    /// -v in the bytes whose bit is set.
    fn negate(self, v: Self::B, bits: u64) -> Self::B;
    /// Byte i of the table where a nibble is i.
    fn look_up(self, table: &[u8; 16], nibbles: Self::B) -> Self::B;
    /// The same by the lower nibble of any bytes.
    #[inline(always)]
    fn look_up_low(self, table: &[u8; 16], v: Self::B) -> Self::B {
        self.look_up(table, self.and_b(v, self.splat_b(15)))
    }
    /// 16-bit lanes shifted right; the caller masks what crosses bytes.
    fn shr_b<const N: u32>(self, v: Self::B) -> Self::B;
    /// 16-bit lanes shifted left.
    fn shl_b<const N: u32>(self, v: Self::B) -> Self::B;
    /// The first half as it is, the second shifted right as [`Wide::shr_b`].
    fn shr_second<const N: u32>(self, v: Self::B) -> Self::B;
    /// i16 lanes of signed bytes: high bytes picked by `index`, shifted down.
    fn pick16(self, bytes: &[i8; 16], index: &[u8; 64]) -> Self::B;

    /// Sixteen zeros.
    fn zero_i(self) -> Self::I;
    /// Every lane `x`.
    fn splat_i(self, x: i32) -> Self::I;
    /// Words 2 `index` and 2 `index` + 1 in every lane.
    fn splat_words(self, words: &[i16; 16], index: usize) -> Self::I;
    /// Lanes from memory.
    fn load_i(self, p: &[i32; 16]) -> Self::I;
    /// acc + a * b.
    fn mul_add_i(self, acc: Self::I, a: Self::I, b: Self::I) -> Self::I;
    /// acc + products of i16 summed by pairs.
    fn dot_words(self, acc: Self::I, a: Self::I, b: Self::I) -> Self::I;
    /// acc + codes * x summed by fours; OFFSET 128 says that codes may be above 127, and is
    /// subtracted from them if [`Wide::SIGNED_QUADS`].
    fn dot_quads<const OFFSET: u8>(self, acc: Self::I, codes: Self::B, x: Self::B) -> Self::I;
    /// acc + codes of R weight rows times C vectors of activations, for sixteens of K: of each row
    /// 16 codes, of each vector four lines of four values a lane. OFFSET as above.
    #[inline(always)]
    fn dot_tile<const R: usize, const C: usize, const OFFSET: u8>(
        self,
        mut acc: [[Self::I; C]; R],
        codes: [&[[u8; 16]]; R],
        x: [&[[[i8; 64]; 4]]; C],
    ) -> [[Self::I; C]; R] {
        for i in 0..x[0].len() {
            for quad in 0..4 {
                let x = x.map(|x| self.load_x(&x[i][quad]));
                for r in 0..R {
                    let w = self.splat_quad(&codes[r][i].as_chunks().0[quad]);
                    for c in 0..C {
                        acc[r][c] = self.dot_quads::<OFFSET>(acc[r][c], w, x[c]);
                    }
                }
            }
        }
        acc
    }
    /// Bytes `at` to `at` + 15 behind sixteen pointers as words: lane l of word w holds four bytes
    /// behind pointer l.
    ///
    /// # Safety
    /// Those bytes are readable.
    unsafe fn words(self, rows: &[*const u8; 16], at: usize) -> [Self::B; 4];
    /// [`Wide::dot_quads`] with activations 4 QUAD to 4 QUAD + 3 everywhere.
    fn dot_x<const OFFSET: u8, const QUAD: usize>(
        self,
        acc: Self::I,
        codes: Self::B,
        x: &[i8; 32],
    ) -> Self::I;
    /// [`Wide::dot_words`] with words 2 PAIR and 2 PAIR + 1 in every lane.
    #[inline(always)]
    fn dot_pair<const PAIR: usize>(self, acc: Self::I, a: Self::I, words: &[i16; 8]) -> Self::I {
        self.dot_words(acc, a, self.splat_i(word_pair(words, PAIR)))
    }
    /// a - b, bytes.
    fn sub_b(self, a: Self::B, b: Self::B) -> Self::B;
    /// Byte N of each four as a number.
    fn byte<const N: u32, const SIGNED: bool>(self, v: Self::B) -> Self::I;
    /// Bytes N (0 or 2) and N + 1 of each four as two words.
    fn byte_pair<const N: u8, const SIGNED: bool>(self, v: Self::B) -> Self::I;
    /// The low or the high two bytes of each four as an f16.
    fn half_of<const HIGH: bool>(self, v: Self::B) -> Self::F;
    /// Bit 4 `quad` + i of a lane in bit 4 of its byte i; other bits mean nothing.
    fn fifth_bits(self, bits: Self::B, quad: usize) -> Self::B;
    /// a + b.
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// Asks for a cache line, no nearer than the second cache; it need not be readable.
    fn prefetch_second(self, p: *const u8);
    /// To f32.
    fn to_f(self, v: Self::I) -> Self::F;
    /// -(a * b) + c, rounded once.
    fn fnma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// v * 2^N.
    fn shl_i<const N: u32>(self, v: Self::I) -> Self::I;
    /// a - b * 2^N.
    fn sub_shl<const N: u32>(self, a: Self::I, b: Self::I) -> Self::I;
    /// acc + (codes * x summed by pairs) * scales summed by pairs; codes at most 127.
    fn dot_scaled_b(self, acc: Self::I, codes: Self::B, x: Self::B, scales: Self::B) -> Self::I;
    /// acc + ((codes - 128) * x summed by pairs) * scales summed by pairs.
    fn dot_scaled_signed(
        self,
        acc: Self::I,
        codes: Self::B,
        x: Self::B,
        scales: Self::B,
    ) -> Self::I;
    /// Sums of lanes 0..8 of each, and of lanes 8..16.
    fn reduce_halves(self, v: [Self::I; 4]) -> [[i32; 4]; 2];
}

/// For each four bytes, which of them make two words: as they are, or in the upper bytes.
#[inline(always)]
pub const fn byte_pairs<const N: u8, const SIGNED: bool>() -> [u8; 16] {
    let mut index = [128; 16];
    let mut i = 0;
    while i < 8 {
        index[2 * i + SIGNED as usize] = (i / 2 * 4 + i % 2) as u8 + N;
        i += 1;
    }
    index
}

/// Four bytes as one number.
#[inline(always)]
pub fn quad_of(x: &[i8; 32], quad: usize) -> i32 {
    i32::from_le_bytes(x.as_chunks::<4>().0[quad].map(i8::cast_unsigned))
}

/// Two words as one number.
#[inline(always)]
pub fn word_pair(words: &[i16], index: usize) -> i32 {
    let [a, b] = words.as_chunks::<2>().0[index];
    i32::from(b) << 16 | i32::from(a.cast_unsigned())
}

/// Code that runs on tiers with fast integer kernels.
pub trait WideKernel {
    /// What it gives.
    type Out;
    /// Runs with the tier's vectors.
    fn run<S: Wide>(self, s: S) -> Self::Out;
}
