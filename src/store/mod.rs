//! Where the weights are: groups and their states over an I/O back end. It does not know what the
//! bytes mean.

use crate::plan::WeightId;

/// The right to read one group's weights while it lives.
pub struct Lease<'a> {
    slices: &'a [Option<&'a [u8]>],
}

impl<'a> Lease<'a> {
    /// A lease over weights that lie in memory, indexed by weight.
    #[must_use]
    pub fn new(slices: &'a [Option<&'a [u8]>]) -> Self {
        Lease { slices }
    }

    /// The bytes of a weight; empty if it does not belong to the group.
    #[must_use]
    pub fn bytes(&self, weight: WeightId) -> &'a [u8] {
        self.slices.get(weight.0 as usize).copied().flatten().unwrap_or(&[])
    }
}
