//! Architectures that GGUF files may have and that are not built yet. A file of one of them that is
//! broken whatever its architecture is called invalid; a sound one unsupported, by name.

use crate::error::{Code, Error, Result, shown};
use crate::gguf::File;

use super::ARCHITECTURES;

/// Keys without which no file of a known architecture can be used.
const KEYS: [&str; 3] = ["context_length", "embedding_length", "block_count"];

/// Name, further keys and tensors that every file of it has.
const KNOWN: &[(&str, &[&str], &[&str])] = &[
    ("bert", &["attention.layer_norm_epsilon"], &["token_embd.weight"]),
    ("gemma", &[RMS], &["token_embd.weight"]),
    ("gemma2", &[RMS], &["token_embd.weight", "blk.0.post_attention_norm.weight"]),
    ("gemma3", &[RMS], &["token_embd.weight", "blk.0.post_attention_norm.weight"]),
    ("mamba", &["ssm.conv_kernel", "ssm.inner_size", "ssm.state_size"], &["token_embd.weight"]),
    ("phi3", &[RMS], &["token_embd.weight"]),
    ("qwen2", &[RMS], &["token_embd.weight", QB, KB, VB]),
    ("qwen3", &[RMS], &["token_embd.weight", "blk.0.attn_q_norm.weight"]),
    ("qwen3moe", &[RMS], &["token_embd.weight", "blk.0.ffn_gate_inp.weight"]),
];

const RMS: &str = "attention.layer_norm_rms_epsilon";
const QB: &str = "blk.0.attn_q.bias";
const KB: &str = "blk.0.attn_k.bias";
const VB: &str = "blk.0.attn_v.bias";

/// The refusal of a file whose architecture is not in the registry.
pub fn refuse(file: &File, name: &str) -> Error {
    match KNOWN.iter().find(|known| known.0 == name) {
        None => unsupported(file, name, "is unknown"),
        Some((_, keys, tensors)) => match check(file, name, keys, tensors) {
            Err(invalid) => invalid,
            Ok(()) => unsupported(file, name, "is not supported yet"),
        },
    }
}

fn unsupported(file: &File, name: &str, why: &str) -> Error {
    let built: Vec<_> = ARCHITECTURES.iter().map(|known| known.name).collect();
    let what = format!("architecture '{}' {why}; supported: {}", shown(name), built.join(", "));
    let path = file.path();
    Error::at(Code::UnsupportedArchitecture, path, "key 'general.architecture'", what)
}

fn check(file: &File, name: &str, keys: &[&str], tensors: &[&str]) -> Result<()> {
    let missing = |at: String| Error::at(Code::ModelInvalid, file.path(), at, "is missing");
    for key in KEYS.iter().chain(keys) {
        let key = format!("{name}.{key}");
        if file.meta().get(&key).is_none() {
            return Err(missing(format!("key '{key}'")));
        }
    }
    match tensors.iter().find(|tensor| file.tensor(tensor).is_none()) {
        Some(tensor) => Err(missing(format!("tensor '{tensor}'"))),
        None => Ok(()),
    }
}
