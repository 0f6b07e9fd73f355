//! A small llama in the making: keys and tensors that a test changes before it is written as GGUF.
//! Weights are random F32 values of a size that keeps logits sane.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use node_chord::gguf::{Array, Value};

use crate::writer::Gguf;

/// A tensor: shape with the outermost dimension first, type number, size of its values.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub kind: u32,
    pub size: f32,
}

/// Type numbers of GGUF.
pub const F32: u32 = 0;
pub const F16: u32 = 1;
pub const Q8_0: u32 = 8;

/// A model that is not yet written.
#[derive(Clone, Debug)]
pub struct Draft {
    pub keys: Vec<(String, Value)>,
    pub tensors: Vec<Tensor>,
}

/// Sizes of the draft: width, heads, key heads, head size, feed-forward, tokens.
pub const SIZES: (u32, u32, u32, u32, u32, u32) = (32, 4, 2, 8, 48, 40);

impl Draft {
    /// A sound model of two layers with an output matrix of its own.
    pub fn llama() -> Draft {
        let (width, n_head, n_head_kv, head_dim, n_ff, n_vocab) = SIZES;
        let tokens = (0..n_vocab).map(|id| id.to_string()).collect();
        let mut draft = Draft { keys: Vec::new(), tensors: Vec::new() };
        for (key, value) in [
            ("general.architecture", Value::String(b"llama".to_vec())),
            ("llama.block_count", Value::U32(2)),
            ("llama.context_length", Value::U32(128)),
            ("llama.embedding_length", Value::U32(width)),
            ("llama.feed_forward_length", Value::U32(n_ff)),
            ("llama.attention.head_count", Value::U32(n_head)),
            ("llama.attention.head_count_kv", Value::U32(n_head_kv)),
            ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
            ("tokenizer.ggml.tokens", Value::Array(Array::Strings(tokens))),
        ] {
            draft.set(key, value);
        }
        let [width, n_ff, n_vocab] = [width, n_ff, n_vocab].map(|n| n as usize);
        let (q, kv) = ((n_head * head_dim) as usize, (n_head_kv * head_dim) as usize);
        draft.tensor("token_embd.weight", &[n_vocab, width]);
        for layer in 0..2 {
            for (name, shape) in [
                ("attn_norm", vec![width]),
                ("attn_q", vec![q, width]),
                ("attn_k", vec![kv, width]),
                ("attn_v", vec![kv, width]),
                ("attn_output", vec![width, q]),
                ("ffn_norm", vec![width]),
                ("ffn_gate", vec![n_ff, width]),
                ("ffn_up", vec![n_ff, width]),
                ("ffn_down", vec![width, n_ff]),
            ] {
                draft.tensor(&format!("blk.{layer}.{name}.weight"), &shape);
            }
        }
        draft.tensor("output_norm.weight", &[width]);
        draft.tensor("output.weight", &[n_vocab, width]);
        draft
    }

    /// Sets a key, in place of an older value.
    pub fn set(&mut self, key: &str, value: Value) {
        self.keys.retain(|(known, _)| known != key);
        self.keys.push((key.to_owned(), value));
    }

    /// Takes a key away.
    pub fn unset(&mut self, key: &str) {
        self.keys.retain(|(known, _)| known != key);
    }

    /// Adds a tensor of F32 values, in place of an older one.
    pub fn tensor(&mut self, name: &str, shape: &[usize]) {
        self.remove(name);
        let fan_in = if shape.len() > 1 { *shape.last().expect("a width") } else { 1 };
        let size = 1.5 / (fan_in as f32).sqrt();
        let (name, shape) = (name.to_owned(), shape.to_vec());
        self.tensors.push(Tensor { name, shape, kind: F32, size });
    }

    /// Takes a tensor away.
    pub fn remove(&mut self, name: &str) {
        self.tensors.retain(|tensor| tensor.name != name);
    }

    /// Changes the type of a tensor.
    pub fn retype(&mut self, name: &str, kind: u32) {
        let tensor = self.tensors.iter_mut().find(|tensor| tensor.name == name);
        tensor.expect("a tensor of the draft").kind = kind;
    }

    /// The file.
    pub fn write(&self) -> PathBuf {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("draft-{}-{number}.gguf", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, self.bytes()).expect("target/tmp is writable");
        path
    }

    fn bytes(&self) -> Vec<u8> {
        let mut file = Gguf::new(self.keys.clone());
        let mut data: Vec<u8> = Vec::new();
        for (seed, tensor) in self.tensors.iter().enumerate() {
            let dimensions = tensor.shape.iter().rev().map(|n| *n as u64).collect();
            file.tensors.push((tensor.name.clone(), dimensions, tensor.kind, data.len() as u64));
            data.extend(values(tensor, seed as u64));
            data.resize(data.len().next_multiple_of(32), 0);
        }
        let mut out = file.header();
        out.extend(data);
        out
    }
}

/// Norms and factors around 1, everything else around 0. Other types than F32 are zeros.
fn values(tensor: &Tensor, seed: u64) -> Vec<u8> {
    let n: usize = tensor.shape.iter().product();
    match tensor.kind {
        F16 => return vec![0; 2 * n],
        Q8_0 => return vec![0; n / 32 * 34],
        _ => {}
    }
    let around =
        if tensor.name.contains("norm") || tensor.name.contains("freqs") { 1.0 } else { 0.0 };
    let size = if around == 1.0 { 0.3 } else { tensor.size };
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * size + around
    };
    (0..n).flat_map(|_| next().to_le_bytes()).collect()
}
