//! Quantised forms of a value. Steps that share an input (q, k, v; gate, up; experts) share them.

use super::super::pool::Pool;
use super::super::simd::Tier;
use super::buffer::Buffer;
use super::drive::for_rows;
use super::linear::{Acts, Linear};
use super::pack::{PackBuffer, Packed, SUM_LINES};
use super::quantise::{ActKind, Bytes, QuantiseRow};
use super::stripe::Shared;
use crate::error::Result;
use std::ops::Range;

/// Bytes of one matrix `[n_rows, k]`, with scales and sums.
#[derive(Default)]
pub struct Quantised {
    qs: Buffer<i8>,
    ds: Buffer<f32>,
    sums: Buffer<i16>,
    sums32: Buffer<i16>,
    starts: Buffer<i32>,
}

impl Quantised {
    /// Quantises rows of `k` values; several threads share many rows.
    fn fill(
        &mut self,
        kind: ActKind,
        (tier, pool): (Tier, &mut Pool),
        x: &[f32],
        k: usize,
    ) -> Result<()> {
        let block = kind.block();
        self.qs.grow(x.len())?;
        self.ds.grow(x.len() / block)?;
        self.sums.grow(x.len() / 16)?;
        self.sums32.grow(x.len() / 32)?;
        self.starts.grow(x.len() / 32)?;
        let qs = Shared::new(&mut self.qs, k);
        let ds = Shared::new(&mut self.ds, k / block);
        let sums = Shared::new(&mut self.sums, k / 16);
        let sums32 = Shared::new(&mut self.sums32, k / 32);
        let starts = Shared::new(&mut self.starts, k / 32);
        for_rows(pool, x.len() / k, k, &|row| {
            let x = &x[row * k..(row + 1) * k];
            // SAFETY: `for_rows` gives each row to one thread, once.
            let row = unsafe {
                let (sums32, starts) = (sums32.row(row), starts.row(row));
                let (qs, ds, sums) = (qs.row(row), ds.row(row), sums.row(row));
                QuantiseRow { kind, x, qs, ds, sums, sums32, starts }
            };
            tier.call(row);
        })
    }

    fn view(&self, rows: Range<usize>, k: usize, kind: ActKind) -> Bytes<'_> {
        let part = |width: usize| rows.start * width..rows.end * width;
        Bytes {
            qs: &self.qs[part(k)],
            ds: &self.ds[part(k / kind.block())],
            sums: &self.sums[part(k / 16)],
            sums32: &self.sums32[part(k / 32)],
            starts: &self.starts[part(k / 32)],
        }
    }

    fn bytes(&self) -> usize {
        let sums = self.sums.bytes() + self.sums32.bytes() + self.starts.bytes();
        self.qs.bytes() + self.ds.bytes() + sums
    }
}

/// The forms of one value at a time.
#[derive(Default)]
pub struct ActCache {
    tags: [Option<u32>; 2],
    forms: [Quantised; 2],
    packs: [PackBuffer; 2],
    /// Rows from which ranges are packed.
    packed_from: [Option<usize>; 2],
}

fn index(kind: ActKind) -> Option<usize> {
    match kind {
        ActKind::Float => None,
        ActKind::Block32 => Some(0),
        ActKind::Block256 => Some(1),
    }
}

impl ActCache {
    /// Forgets everything: a new pass writes new values.
    pub fn clear(&mut self) {
        self.tags = [None; 2];
    }

    /// Makes the form of value `tag` that a kernel wants, if it is not there yet; products will
    /// take the rows in these ranges.
    ///
    /// # Errors
    /// `ERR_INSUFFICIENT_MEMORY`.
    pub fn prepare(
        &mut self,
        tag: u32,
        kernel: Linear,
        tools: (Tier, &mut Pool),
        (x, k): (&[f32], usize),
        ranges: &mut dyn Iterator<Item = Range<usize>>,
    ) -> Result<()> {
        let (kind, least) = (kernel.act, kernel.many_from);
        let Some(i) = index(kind) else { return Ok(()) };
        let (tier, pool) = tools;
        if self.tags[i] != Some(tag) {
            (self.tags[i], self.packed_from[i]) = (None, None);
            self.packs[i].clear();
            self.forms[i].fill(kind, (tier, pool), x, k)?;
            self.tags[i] = Some(tag);
        }
        // A kernel before this one may have asked for less.
        if tier.is_wide() && self.packed_from[i].is_none_or(|from| from > least) {
            self.packed_from[i] = None;
            let bytes = self.forms[i].view(0..x.len() / k, k, kind);
            self.packs[i].fill(pool, kind, (bytes, k), ranges, least)?;
            self.packed_from[i] = Some(least);
        }
        Ok(())
    }

    /// The packed form of a range of rows, if it was large enough to be packed.
    #[must_use]
    pub fn packed(&self, kind: ActKind, rows: &Range<usize>, k: usize) -> Option<Packed<'_>> {
        self.packs.get(index(kind)?)?.view(kind, rows, k)
    }

    /// Some rows of the prepared form; `x` are all rows as floats.
    #[must_use]
    pub fn view<'a>(
        &'a self,
        kind: ActKind,
        x: &'a [f32],
        rows: Range<usize>,
        k: usize,
    ) -> Acts<'a> {
        match kind {
            ActKind::Float => Acts::Float(&x[rows.start * k..rows.end * k]),
            ActKind::Block32 => Acts::Block32(self.forms[0].view(rows, k, kind)),
            ActKind::Block256 => Acts::Block256(self.forms[1].view(rows, k, kind)),
        }
    }

    /// Makes room for matrices of up to `values` numbers.
    ///
    /// # Errors
    /// `ERR_INSUFFICIENT_MEMORY`.
    pub fn reserve(&mut self, values: usize) -> Result<()> {
        for (form, kind) in self.forms.iter_mut().zip([ActKind::Block32, ActKind::Block256]) {
            form.qs.grow(values)?;
            form.ds.grow(values.div_ceil(kind.block()))?;
            form.sums.grow(values.div_ceil(16))?;
            form.sums32.grow(values.div_ceil(32))?;
            form.starts.grow(values.div_ceil(32))?;
        }
        Ok(())
    }

    /// Bytes for `values` numbers, packed ones included, which ranges of rows make `padded` times
    /// as many at most.
    #[must_use]
    pub fn bytes_of(values: usize, padded: usize) -> usize {
        let of = |kind: ActKind| {
            let scales = values.div_ceil(kind.block()) * size_of::<f32>();
            let sums = values.div_ceil(256) * SUM_LINES * size_of::<i32>();
            let packed = padded * (values + sums + scales);
            let sums = values.div_ceil(16) + 3 * values.div_ceil(32);
            values + scales + sums * size_of::<i16>() + packed
        };
        of(ActKind::Block32) + of(ActKind::Block256)
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.forms.iter().map(Quantised::bytes).sum::<usize>()
            + self.packs.iter().map(PackBuffer::bytes).sum::<usize>()
    }
}
