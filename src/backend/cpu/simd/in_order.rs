//! What a kernel needs beyond [`Wide`] that takes blocks in the order of memory: a register that
//! holds 64 codes, and sums across its lanes. Only tiers where that pays have it.

use super::wide::Wide;

/// A tier whose registers hold 64 bytes.
pub trait InOrder: Wide {
    /// Signed bytes as words, twice; then words 4 i to 4 i + 3 in vector i, each eight times.
    fn scales16(self, bytes: &[u8; 16]) -> (Self::I, [Self::B; 4]);
    /// Lane 4 q + i: the sum of quarter q of v[i].
    fn sum_quads(self, v: [Self::I; 4]) -> Self::I;
    /// Lane 4 q + i: the sum of lanes i of the quarters of v[q].
    fn sum_quarters(self, v: [Self::I; 4]) -> Self::I;
}

/// Code that runs on such tiers.
pub trait InOrderKernel {
    /// Runs with the tier's vectors.
    fn run<S: InOrder>(self, s: S);
}
