//! Keys and values in pages of f32, rounded to what their type keeps, and attention over them with
//! its scores written out.

use std::collections::HashMap;

use candle_core::{D, Device, Tensor};

use super::round::round;
use super::steps::candle;
use crate::backend::{Batch, KvType, PAGE_TOKENS, PageId};
use crate::error::{Code, Error, Result};
use crate::plan::{Attend, KvLayer};

/// One layer of a page: keys `[PAGE_TOKENS, n_head_kv, head_dim_k]`, values likewise.
struct PageLayer {
    k: Vec<f32>,
    v: Vec<f32>,
}

/// The KV cache of the reference.
pub struct Kv {
    layers: Vec<KvLayer>,
    kinds: [KvType; 2],
    pages: HashMap<PageId, Vec<PageLayer>>,
}

impl Kv {
    /// No pages. Errors: `ERR_INVALID_ARG` for a type that a head size does not allow.
    pub fn new(layers: Vec<KvLayer>, k: KvType, v: KvType) -> Result<Self> {
        KvType::check(&layers, k, v)?;
        Ok(Kv { layers, kinds: [k, v], pages: HashMap::new() })
    }

    pub fn commit(&mut self, page: PageId) -> Result<()> {
        let required = self.page_bytes();
        let zeros = |width: usize| {
            let mut out = Vec::new();
            let reserved = out.try_reserve_exact(PAGE_TOKENS * width);
            out.resize(if reserved.is_ok() { PAGE_TOKENS * width } else { 0 }, 0.0f32);
            reserved.map(|()| out).map_err(|_| {
                let text = format!("no memory for a page of the KV cache ({required} bytes)");
                Error::new(Code::InsufficientMemory, text)
                    .with("memory", "ram")
                    .with("required", required)
                    .with("available", 0_u64)
            })
        };
        let mut layers = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            let k = zeros(layer.n_head_kv * layer.head_dim_k)?;
            let v = zeros(layer.n_head_kv * layer.head_dim_v)?;
            layers.push(PageLayer { k, v });
        }
        self.pages.insert(page, layers);
        Ok(())
    }

    pub fn free(&mut self, page: PageId) {
        self.pages.remove(&page);
    }

    pub fn is_committed(&self, page: PageId) -> bool {
        self.pages.contains_key(&page)
    }

    pub fn page_bytes(&self) -> usize {
        let width = |layer: &KvLayer| layer.n_head_kv * (layer.head_dim_k + layer.head_dim_v);
        self.layers.iter().map(|layer| 4 * PAGE_TOKENS * width(layer)).sum()
    }

    pub fn copy(&mut self, from: PageId, to: PageId, tokens: usize) -> Result<()> {
        let tokens = tokens.min(PAGE_TOKENS);
        let missing = || Error::internal("page_copy", "page is not committed");
        let source = self.pages.get(&from).ok_or_else(missing)?;
        let copied: Vec<_> = source
            .iter()
            .map(|layer| {
                let part = |all: &[f32]| all[..all.len() / PAGE_TOKENS * tokens].to_vec();
                (part(&layer.k), part(&layer.v))
            })
            .collect();
        let target = self.pages.get_mut(&to).ok_or_else(missing)?;
        for (layer, (k, v)) in target.iter_mut().zip(copied) {
            layer.k[..k.len()].copy_from_slice(&k);
            layer.v[..v.len()].copy_from_slice(&v);
        }
        Ok(())
    }

    /// Appends all rows' keys and values, then each row attends to its own sequence up to itself.
    pub fn attend(&mut self, a: &Attend, batch: &Batch, inputs: &[&[f32]]) -> Result<Vec<f32>> {
        let &[q, k, v] = inputs else {
            return Err(Error::internal("attend", "expects q, k and v"));
        };
        let (q_width, o_width) = (a.n_head * a.head_dim_k, a.n_head * a.head_dim_v);
        let (k_width, v_width) = (a.n_head_kv * a.head_dim_k, a.n_head_kv * a.head_dim_v);
        let layer = a.kv.0 as usize;
        for (index, row) in batch.rows.iter().enumerate() {
            let (page, at) = place(batch, row.sequence, row.position as usize)?;
            let Some(page) = self.pages.get_mut(&page) else {
                return Err(Error::internal("attend", "page is not committed"));
            };
            let stored = &mut page[layer].k[at * k_width..][..k_width];
            stored.copy_from_slice(&k[index * k_width..][..k_width]);
            stored.chunks_exact_mut(a.head_dim_k).for_each(|head| round(self.kinds[0], head));
            let stored = &mut page[layer].v[at * v_width..][..v_width];
            stored.copy_from_slice(&v[index * v_width..][..v_width]);
            stored.chunks_exact_mut(a.head_dim_v).for_each(|head| round(self.kinds[1], head));
        }
        let mut out = Vec::with_capacity(batch.rows.len() * o_width);
        for (index, row) in batch.rows.iter().enumerate() {
            let n = row.position as usize + 1;
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for position in 0..n {
                let (page, at) = place(batch, row.sequence, position)?;
                let page = &self.pages[&page][layer];
                keys.extend_from_slice(&page.k[at * k_width..][..k_width]);
                values.extend_from_slice(&page.v[at * v_width..][..v_width]);
            }
            let q = &q[index * q_width..][..q_width];
            out.extend(attend_row(a, q, keys, values, n).map_err(candle)?);
        }
        Ok(out)
    }
}

/// Page and place in it of a position.
fn place(batch: &Batch, sequence: u32, position: usize) -> Result<(PageId, usize)> {
    let pages = batch.sequences.get(sequence as usize);
    match pages.and_then(|pages| pages.get(position / PAGE_TOKENS)) {
        Some(page) => Ok((*page, position % PAGE_TOKENS)),
        None => Err(Error::internal("attend", format!("position {position} has no page"))),
    }
}

/// softmax(q k^T * scale) v of one row. `q: [n_head, head_dim_k]`, `keys: [n, n_head_kv, ..]`.
fn attend_row(
    a: &Attend,
    q: &[f32],
    keys: Vec<f32>,
    values: Vec<f32>,
    n: usize,
) -> candle_core::Result<Vec<f32>> {
    let cpu = &Device::Cpu;
    let shared = a.n_head / a.n_head_kv;
    // [n_head_kv, shared, head_dim_k], [n_head_kv, n, head_dim_k], [n_head_kv, n, head_dim_v]
    let q = Tensor::from_slice(q, (a.n_head_kv, shared, a.head_dim_k), cpu)?;
    let k = Tensor::from_vec(keys, (n, a.n_head_kv, a.head_dim_k), cpu)?;
    let v = Tensor::from_vec(values, (n, a.n_head_kv, a.head_dim_v), cpu)?;
    let (k, v) = (k.transpose(0, 1)?.contiguous()?, v.transpose(0, 1)?.contiguous()?);
    let scores = (q.matmul(&k.transpose(1, 2)?)? * f64::from(a.scale))?;
    let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    let weights = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
    weights.matmul(&v)?.flatten_all()?.to_vec1()
}
