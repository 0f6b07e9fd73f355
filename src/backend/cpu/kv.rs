//! Memory of the KV cache: pages of 32 tokens over all layers, made and freed one by one. A layer
//! has two sections, aligned to 64 bytes: keys, then values, a head after the other. How a head
//! lies in memory is the matter of `kernel::attend`.

use super::kernel::attend::append::{Append, Head};
use super::kernel::attend::{KvLayerView, PageView};
use super::kernel::buffer::Buffer;
use super::simd::Tier;
use super::slabs::Slabs;
use crate::backend::{KvType, PAGE_TOKENS, PageId};
use crate::error::{Error, Result};
use crate::plan::{KvLayer, KvLayerId};
use std::ops::Range;

/// Where a layer's keys and values lie in a page, in bytes.
#[derive(Clone, Debug)]
struct Place {
    layer: KvLayer,
    k: Range<usize>,
    v: Range<usize>,
}

/// All pages.
pub struct Pages {
    kinds: [KvType; 2],
    places: Vec<Place>,
    memory: Slabs,
    head: Head,
}

impl Pages {
    /// No pages yet, for these layers.
    ///
    /// # Errors
    /// `ERR_INVALID_ARG` for a type that a head size does not allow.
    pub fn new(layers: &[KvLayer], kv_k: KvType, kv_v: KvType) -> Result<Self> {
        KvType::check(layers, kv_k, kv_v)?;
        let mut at: usize = 0;
        let mut places = Vec::new();
        for layer in layers {
            let mut section = |head_dim: usize, kind: KvType| {
                let start = at.next_multiple_of(64);
                at = start + layer.n_head_kv * PAGE_TOKENS * kind.head_bytes(head_dim);
                start..at
            };
            let (k, v) = (section(layer.head_dim_k, kv_k), section(layer.head_dim_v, kv_v));
            places.push(Place { layer: *layer, k, v });
        }
        let memory = Slabs::new(at.next_multiple_of(64));
        Ok(Pages { kinds: [kv_k, kv_v], places, memory, head: Head::default() })
    }

    /// Bytes of a page, all in all.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        self.memory.page_bytes()
    }

    /// Makes memory for a page; nothing happens if it has some.
    ///
    /// # Errors
    /// `ERR_INSUFFICIENT_MEMORY`.
    pub fn commit(&mut self, page: PageId) -> Result<()> {
        self.memory.commit(page.0 as usize)
    }

    /// Gives a page's memory back.
    pub fn free(&mut self, page: PageId) {
        self.memory.free(page.0 as usize);
    }

    /// Whether a page has memory.
    #[must_use]
    pub fn has(&self, page: PageId) -> bool {
        self.memory.get(page.0 as usize).is_some()
    }

    /// Copies the first tokens of a page. The rest of the target is of no use to anyone.
    ///
    /// # Errors
    /// `ERR_INTERNAL` if one of them has no memory; `ERR_INSUFFICIENT_MEMORY`.
    pub fn copy(&mut self, from: PageId, to: PageId, tokens: usize) -> Result<()> {
        let missing = || Error::internal("kv", format!("copy of page {} to {}", from.0, to.0));
        if from == to || tokens == 0 {
            return Ok(());
        }
        // Tokens are the innermost index of keys, so whole pages are copied.
        let source = self.memory.get(from.0 as usize).ok_or_else(missing)?;
        let mut copy = Buffer::new(source.len())?;
        copy.copy_from_slice(source);
        self.memory.get_mut(to.0 as usize).ok_or_else(missing)?.copy_from_slice(&copy);
        Ok(())
    }

    /// One layer of the pages of a sequence, for reading.
    #[must_use]
    pub fn view(&self, layer: KvLayerId, page: PageId) -> PageView<'_> {
        let Some(place) = self.places.get(layer.0 as usize) else { return PageView::EMPTY };
        let bytes = self.memory.get(page.0 as usize).unwrap_or(&[]);
        let part = |range: &Range<usize>| bytes.get(range.clone()).unwrap_or(&[]);
        PageView { k: part(&place.k), v: part(&place.v) }
    }

    /// What the pages of a layer look like.
    #[must_use]
    pub fn layer(&self, layer: KvLayerId) -> Option<KvLayerView> {
        let place = self.places.get(layer.0 as usize)?;
        Some(KvLayerView { layer: place.layer, k: self.kinds[0], v: self.kinds[1] })
    }

    /// Writes keys and values `[n, n_head_kv * head_dim]` of consecutive tokens into a page, the
    /// first at slot `first`; all of them lie in the page.
    pub fn append(
        &mut self,
        tier: Tier,
        layer: KvLayerId,
        (page, first): (PageId, usize),
        (k, v): (&[f32], &[f32]),
    ) {
        let Some(kv) = self.layer(layer) else { return };
        let place = &self.places[layer.0 as usize];
        let Some(bytes) = self.memory.get_mut(page.0 as usize) else { return };
        let (before, after) = bytes.split_at_mut(place.v.start);
        let k_out = &mut before[place.k.clone()];
        let v_out = &mut after[..place.v.len()];
        tier.call(Append { kv, first, k, v, k_out, v_out, head: &mut self.head });
    }
}
