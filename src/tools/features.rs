//! What this build can do, as JSON.

use serde_json::json;

use crate::backend::cpu::simd::Tier;
use crate::model;
use crate::quant::TensorType;
use crate::tokenizer;

/// Kernel tiers of this CPU, slowest first.
#[must_use]
pub fn tiers() -> Vec<String> {
    Tier::available().iter().map(|tier| tier.name().to_owned()).collect()
}

/// `Features` without the platform.
#[must_use]
pub fn features() -> String {
    let types: Vec<_> = TensorType::ALL.iter().map(|kind| kind.name()).collect();
    let pre = tokenizer::pre_names().filter(|name| !name.is_empty());
    let bpe = pre.map(|name| format!("gpt2/{name}"));
    let tokenizers: Vec<_> = std::iter::once("llama".to_owned()).chain(bpe).collect();
    json!({
        "cpu": Tier::detect().name(), "backends": ["cpu"],
        "architectures": model::architectures(), "tensorTypes": types,
        "tokenizers": tokenizers,
    })
    .to_string()
}
