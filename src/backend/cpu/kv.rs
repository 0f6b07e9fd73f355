//! Memory of the KV cache: pages of 32 tokens over all layers, made and freed one by one. A layer
//! has two sections, aligned to 64 bytes: k `[n_head_kv][head_dim_k][32 tokens]`, then
//! v `[n_head_kv][32 tokens][head_dim_v]`. With the token innermost, scores of 32 keys are lanes
//! of two vectors and need no sums across lanes.

use super::kernel::attend::{KvLayerView, PageView, append_keys, append_values};
use super::kernel::buffer::Buffer;
use super::simd::Tier;
use crate::backend::{KvType, PAGE_TOKENS, PageId};
use crate::error::{Code, Error, Result};
use crate::plan::{KvLayer, KvLayerId};

/// Bytes of one stored number.
#[must_use]
pub fn kv_bytes(kind: KvType) -> usize {
    match kind {
        KvType::F32 => 4,
        KvType::F16 | KvType::BF16 => 2,
    }
}

/// Where a layer's keys and values lie in a page, in bytes.
#[derive(Clone, Copy, Debug)]
struct Place {
    layer: KvLayer,
    k: usize,
    v: usize,
}

/// All pages.
pub struct Pages {
    kinds: [KvType; 2],
    places: Vec<Place>,
    page_bytes: usize,
    pages: Vec<Option<Buffer<u8>>>,
}

impl Pages {
    /// No pages yet, for these layers.
    #[must_use]
    pub fn new(layers: &[KvLayer], kv_k: KvType, kv_v: KvType) -> Self {
        let mut at = 0;
        let mut places = Vec::new();
        for layer in layers {
            let mut section = |width: usize, kind| {
                let start = at;
                at += (layer.n_head_kv * PAGE_TOKENS * width * kv_bytes(kind)).next_multiple_of(64);
                start
            };
            let (k, v) = (section(layer.head_dim_k, kv_k), section(layer.head_dim_v, kv_v));
            places.push(Place { layer: *layer, k, v });
        }
        Pages { kinds: [kv_k, kv_v], places, page_bytes: at, pages: Vec::new() }
    }

    /// Bytes of a page.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// Makes memory for a page; nothing happens if it has some.
    ///
    /// # Errors
    /// `ERR_INSUFFICIENT_MEMORY`.
    pub fn commit(&mut self, page: PageId) -> Result<()> {
        let index = page.0 as usize;
        let refused = |_| {
            let text = format!("no memory for KV page {index} of {} bytes", self.page_bytes);
            Error::new(Code::InsufficientMemory, text).with("neededBytes", self.page_bytes)
        };
        if index >= self.pages.len() {
            let more = index + 1 - self.pages.len();
            self.pages.try_reserve(more).map_err(refused)?;
            self.pages.resize_with(index + 1, || None);
        }
        if let Some(slot) = self.pages.get_mut(index).filter(|slot| slot.is_none()) {
            *slot = Some(Buffer::new(self.page_bytes)?);
        }
        Ok(())
    }

    /// Gives a page's memory back.
    pub fn free(&mut self, page: PageId) {
        if let Some(slot) = self.pages.get_mut(page.0 as usize) {
            *slot = None;
        }
    }

    /// Whether a page has memory.
    #[must_use]
    pub fn has(&self, page: PageId) -> bool {
        self.pages.get(page.0 as usize).is_some_and(Option::is_some)
    }

    /// Copies the first tokens of a page. The rest of the target is of no use to anyone.
    ///
    /// # Errors
    /// `ERR_INTERNAL` if one of them has no memory.
    pub fn copy(&mut self, from: PageId, to: PageId, tokens: usize) -> Result<()> {
        let missing = || Error::internal("kv", format!("copy of page {} to {}", from.0, to.0));
        if from == to || tokens == 0 {
            return Ok(());
        }
        // Tokens are the innermost index of keys, so whole pages are copied.
        let source =
            self.pages.get_mut(from.0 as usize).and_then(Option::take).ok_or_else(missing)?;
        let target = self.pages.get_mut(to.0 as usize).and_then(Option::as_mut);
        let copied = target.map(|target| target.copy_from_slice(&source));
        self.pages[from.0 as usize] = Some(source);
        copied.ok_or_else(missing)
    }

    /// Bytes of a committed page.
    fn bytes(&self, page: PageId) -> &[u8] {
        self.pages.get(page.0 as usize).and_then(Option::as_ref).map_or(&[], |page| page)
    }

    /// One layer of the pages of a sequence, for reading.
    #[must_use]
    pub fn view(&self, layer: KvLayerId, page: PageId) -> PageView<'_> {
        let Some(place) = self.places.get(layer.0 as usize) else { return PageView::EMPTY };
        let bytes = self.bytes(page);
        let (k, v) =
            (place.k..place.k + self.k_bytes(place), place.v..place.v + self.v_bytes(place));
        PageView { k: bytes.get(k).unwrap_or(&[]), v: bytes.get(v).unwrap_or(&[]) }
    }

    /// What the pages of a layer look like.
    #[must_use]
    pub fn layer(&self, layer: KvLayerId) -> Option<KvLayerView> {
        let place = self.places.get(layer.0 as usize)?;
        Some(KvLayerView { layer: place.layer, k: self.kinds[0], v: self.kinds[1] })
    }

    fn k_bytes(&self, place: &Place) -> usize {
        place.layer.n_head_kv * PAGE_TOKENS * place.layer.head_dim_k * kv_bytes(self.kinds[0])
    }

    fn v_bytes(&self, place: &Place) -> usize {
        place.layer.n_head_kv * PAGE_TOKENS * place.layer.head_dim_v * kv_bytes(self.kinds[1])
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
        let Some(place) = self.places.get(layer.0 as usize).copied() else { return };
        let (k_range, v_range) =
            (place.k..place.k + self.k_bytes(&place), place.v..place.v + self.v_bytes(&place));
        let kinds = self.kinds;
        let Some(Some(bytes)) = self.pages.get_mut(page.0 as usize) else { return };
        if let Some(out) = bytes.get_mut(k_range) {
            append_keys(kinds[0], place.layer, first, k, out);
        }
        if let Some(out) = bytes.get_mut(v_range) {
            append_values(tier, kinds[1], place.layer, first, v, out);
        }
    }
}
