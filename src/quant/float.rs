//! Plain floats: a block is one value.

use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::{Block, half, sizes};

/// IEEE binary32.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct F32 {
    /// Little-endian.
    pub bits: [u8; 4],
}

/// IEEE binary16.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct F16 {
    /// Little-endian.
    pub bits: [u8; 2],
}

/// The upper half of a binary32.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct BF16 {
    /// Little-endian.
    pub bits: [u8; 2],
}

sizes!(F32: F32, F16: F16, BF16: BF16);

impl Block for F32 {
    const LEN: usize = 1;

    fn dequantise(&self, out: &mut [f32]) {
        out.fill(f32::from_le_bytes(self.bits));
    }
}

impl Block for F16 {
    const LEN: usize = 1;

    fn dequantise(&self, out: &mut [f32]) {
        out.fill(half(self.bits));
    }
}

impl Block for BF16 {
    const LEN: usize = 1;

    fn dequantise(&self, out: &mut [f32]) {
        let [low, high] = self.bits;
        out.fill(f32::from_le_bytes([0, 0, low, high]));
    }
}
