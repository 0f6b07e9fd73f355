//! What kernels need beyond [`Wide`] that take blocks in the order of memory: a register that
//! holds 64 codes, tables in registers, sums across lanes. Only tiers where that pays have it.

use super::wide::Wide;

/// A tier whose registers hold 64 bytes.
pub trait InOrder: Wide {
    /// The first 32 bytes, signed, as words; then words 4 i to 4 i + 3 in vector i, each eight
    /// times.
    fn scales16(self, v: Self::B) -> (Self::I, [Self::B; 4]);
    /// Lane 4 q + i: the sum of quarter q of v[i].
    fn sum_quads(self, v: [Self::I; 4]) -> Self::I;
    /// Lane 4 q + i: the sum of lanes i of the quarters of v[q].
    fn sum_quarters(self, v: [Self::I; 4]) -> Self::I;

    /// Sixteen bytes, four times.
    fn splat_16(self, bytes: &[u8; 16]) -> Self::B;
    /// Eight bytes, eight times.
    fn splat_8(self, bytes: &[u8; 8]) -> Self::B;
    /// Bytes as words.
    fn widen(self, bytes: &[u8; 32]) -> Self::B;
    /// Byte i is byte `index[i]` of v.
    fn pick(self, v: Self::B, index: &[u8; 64]) -> Self::B;
    /// Byte i is byte `index[i]` of all of v.
    fn pick_256(self, v: [Self::B; 4], index: &[u8; 64]) -> Self::B;
    /// Byte i is eight bits of its own eight bytes of v, from bit `at[i]` on, around its end.
    fn bits_from(self, v: Self::B, at: &[u8; 64]) -> Self::B;
    /// What the lower six bits of each byte stand for.
    fn look_up_64(self, table: &[u8; 64], v: Self::B) -> Self::B;
    /// What the lower seven bits of each byte stand for.
    fn look_up_128(self, table: &[u8; 128], v: Self::B) -> Self::B;
    /// What each byte stands for.
    fn look_up_256(self, table: &[u8; 256], v: Self::B) -> Self::B;
    /// What the lower eleven bits of each word stand for, in a table with eight words more before
    /// and behind it.
    fn look_up_2048(self, table: &[u16; 2064], v: Self::B) -> Self::B;
    /// What the lower 5 + log2 N bits of each word stand for; N is 8, 16 or 32. A table is loaded
    /// once for all K.
    fn look_up_words<const N: usize, const K: usize>(
        self,
        table: &[[u16; 32]; N],
        v: [Self::B; K],
    ) -> [Self::B; K];
    /// -x where `signs` has one of these bits.
    fn negate_where(self, x: Self::B, signs: Self::B, bits: &[u8; 64]) -> Self::B;
    /// Numbers as bytes.
    fn as_b(self, v: Self::I) -> Self::B;
    /// Bytes as numbers.
    fn as_i(self, v: Self::B) -> Self::I;
}

/// Code that runs on such tiers.
pub trait InOrderKernel {
    /// Runs with the tier's vectors.
    fn run<S: InOrder>(self, s: S);
}
