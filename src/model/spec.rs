//! The typed hyper-parameters of a decoder, each within what a real model could have. Bounds keep
//! later arithmetic far from overflow; exact sizes are settled by the tensors' shapes.

use crate::error::{Code, Error, Result};
use crate::gguf::{Array, File, Value};

use super::keys::Keys;
use super::rope::RopeSpec;

/// Layers at most: llama.cpp's bound, four times the deepest model known.
const N_LAYER_MAX: u32 = 512;
/// Width at most: 2^20, fifty times the widest model known.
const WIDTH_MAX: u32 = 1 << 20;
/// Heads at most, and values of a head.
const HEAD_MAX: u32 = 1 << 14;
/// Context at most: positions are kept in 31 bits.
const N_CTX_MAX: u32 = i32::MAX as u32;
/// Experts at most: twice the most known.
const N_EXPERT_MAX: u32 = 1024;

/// What one layer has of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerSpec {
    /// Query heads.
    pub n_head: usize,
    /// Key and value heads.
    pub n_head_kv: usize,
    /// Width of the feed-forward half (of each expert, if there are any).
    pub n_ff: usize,
}

/// A mixture of experts in place of the feed-forward half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpertSpec {
    /// Experts of a layer.
    pub n_expert: usize,
    /// Experts that a row uses.
    pub n_used: usize,
}

/// The hyper-parameters of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// `general.architecture`.
    pub architecture: &'static str,
    /// Tokens of the vocabulary, rows of the embedding.
    pub n_vocab: usize,
    /// Trained context length.
    pub n_ctx_train: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Values of a query or key head.
    pub head_dim_k: usize,
    /// Values of a value head.
    pub head_dim_v: usize,
    /// Added to the mean square in norms.
    pub rms_eps: f32,
    /// Position embedding.
    pub rope: RopeSpec,
    /// Experts, if the model has any.
    pub experts: Option<ExpertSpec>,
    /// Layer by layer.
    pub layers: Vec<LayerSpec>,
}

impl Spec {
    /// Number of layers.
    #[must_use]
    pub fn n_layer(&self) -> usize {
        self.layers.len()
    }

    /// Reads the keys that decoders have in common.
    pub(super) fn decoder(keys: &mut Keys<'_>) -> Result<Spec> {
        let n_layer = keys.count("block_count", 1..=N_LAYER_MAX)?;
        let n_ctx_train = keys.count("context_length", 1..=N_CTX_MAX)?;
        let n_embd = keys.count("embedding_length", 1..=WIDTH_MAX)?;
        let n_ff = keys.required_counts("feed_forward_length", n_layer, 1..=WIDTH_MAX)?;
        let n_head = keys.required_counts("attention.head_count", n_layer, 1..=HEAD_MAX)?;
        let n_head_kv = keys
            .counts("attention.head_count_kv", n_layer, 1..=HEAD_MAX)?
            .unwrap_or_else(|| n_head.clone());
        let heads = n_head.iter().zip(&n_head_kv);
        for (layer, (n_head, n_head_kv)) in heads.enumerate() {
            if !n_head.is_multiple_of(*n_head_kv) {
                let what =
                    format!("layer {layer} shares {n_head_kv} key heads among {n_head} heads");
                return Err(keys.refuse("attention.head_count_kv", what));
            }
        }
        let head_dim_k = head_dim(keys, "attention.key_length", n_embd, &n_head)?;
        let head_dim_v = head_dim(keys, "attention.value_length", n_embd, &n_head)?;
        let rms_eps = keys.f32("attention.layer_norm_rms_epsilon")?;
        if rms_eps < 0.0 {
            let what = format!("is {rms_eps}, expected 0 or more");
            return Err(keys.refuse("attention.layer_norm_rms_epsilon", what));
        }
        let rope = RopeSpec::read(keys, head_dim_k, n_ctx_train)?;
        let experts = experts(keys)?;
        let layers = n_head.into_iter().zip(n_head_kv).zip(n_ff);
        let layers = layers
            .map(|((n_head, n_head_kv), n_ff)| LayerSpec { n_head, n_head_kv, n_ff })
            .collect();
        let (architecture, n_vocab) = ("", 0);
        Ok(Spec {
            architecture,
            n_vocab,
            n_ctx_train,
            n_embd,
            head_dim_k,
            head_dim_v,
            rms_eps,
            rope,
            experts,
            layers,
        })
    }
}

/// A head's size: as written, else the width shared among the heads of the first layer.
fn head_dim(keys: &mut Keys<'_>, key: &str, n_embd: usize, n_head: &[usize]) -> Result<usize> {
    if let Some(size) = keys.opt_count(key, 1..=HEAD_MAX)? {
        return Ok(size);
    }
    match n_head.first() {
        Some(n_head) if n_embd.is_multiple_of(*n_head) => Ok(n_embd / n_head),
        n_head => {
            let n_head = n_head.copied().unwrap_or(0);
            let what = format!("{n_head} heads do not divide a width of {n_embd}");
            Err(keys.refuse("attention.head_count", what))
        }
    }
}

/// `None` without experts; both keys or neither.
fn experts(keys: &mut Keys<'_>) -> Result<Option<ExpertSpec>> {
    let n_expert = keys.opt_count("expert_count", 0..=N_EXPERT_MAX)?.unwrap_or(0);
    if n_expert == 0 {
        return match keys.opt_u32("expert_used_count")? {
            None | Some(0) => Ok(None),
            Some(n) => Err(keys.refuse("expert_used_count", format!("uses {n} of no experts"))),
        };
    }
    #[allow(clippy::cast_possible_truncation, reason = "at most N_EXPERT_MAX")]
    let n_used = keys.count("expert_used_count", 1..=n_expert as u32)?;
    Ok(Some(ExpertSpec { n_expert, n_used }))
}

/// The vocabulary's size, on which embedding, tokens and the optional key agree. A token list that
/// is missing, empty or none is the tokenizer's to refuse.
pub(super) fn n_vocab(file: &File, architecture: &str, key: Option<u32>) -> Result<usize> {
    const EMBEDDING: &str = "tensor 'token_embd.weight'";
    let tokens = match file.meta().get("tokenizer.ggml.tokens") {
        Some(Value::Array(Array::Strings(tokens))) if !tokens.is_empty() => Some(tokens.len()),
        _ => None,
    };
    let rows = file.tensor("token_embd.weight").and_then(|tensor| {
        let outer = tensor.shape.len().checked_sub(2)?;
        tensor.shape.get(outer).copied()
    });
    let refuse = |at: &str, what: String| Error::at(Code::ModelInvalid, file.path(), at, what);
    let key = key.map(|size| size as usize);
    let Some(size) = tokens.or(rows).or(key) else {
        return Err(refuse(EMBEDDING, "is missing".to_owned()));
    };
    if let Some(rows) = rows.filter(|rows| *rows != size) {
        return Err(refuse(
            EMBEDDING,
            format!("has {rows} rows for a vocabulary of {size} tokens"),
        ));
    }
    if let Some(key) = key.filter(|key| *key != size) {
        let what = format!("is {key}, but the vocabulary has {size} tokens");
        return Err(refuse(&format!("key '{architecture}.vocab_size'"), what));
    }
    Ok(size)
}
