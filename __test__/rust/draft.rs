//! A small llama in the making: keys and tensors that a test changes before it is written as GGUF.
//! Weights are random F32 values of a size that keeps logits sane.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A metadata value.
#[derive(Clone, Debug)]
pub enum Meta {
    U32(u32),
    I32(i32),
    U64(u64),
    F32(f32),
    Bool(bool),
    Text(&'static str),
    List(Vec<u32>),
    Texts(Vec<String>),
}

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
    pub keys: Vec<(String, Meta)>,
    pub tensors: Vec<Tensor>,
}

/// Sizes of the draft: width, heads, key heads, head size, feed-forward, tokens.
pub const SIZES: (u32, u32, u32, u32, u32, u32) = (32, 4, 2, 8, 48, 40);

impl Draft {
    /// A sound model of two layers with an output matrix of its own.
    pub fn llama() -> Draft {
        let (width, n_head, n_head_kv, head_dim, n_ff, n_vocab) = SIZES;
        let mut draft = Draft { keys: Vec::new(), tensors: Vec::new() };
        for (key, value) in [
            ("general.architecture", Meta::Text("llama")),
            ("llama.block_count", Meta::U32(2)),
            ("llama.context_length", Meta::U32(128)),
            ("llama.embedding_length", Meta::U32(width)),
            ("llama.feed_forward_length", Meta::U32(n_ff)),
            ("llama.attention.head_count", Meta::U32(n_head)),
            ("llama.attention.head_count_kv", Meta::U32(n_head_kv)),
            ("llama.attention.layer_norm_rms_epsilon", Meta::F32(1e-5)),
            ("tokenizer.ggml.tokens", Meta::Texts((0..n_vocab).map(|i| i.to_string()).collect())),
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
    pub fn set(&mut self, key: &str, value: Meta) {
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
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            text(&mut out, key);
            meta(&mut out, value);
        }
        let mut data = Vec::new();
        for (seed, tensor) in self.tensors.iter().enumerate() {
            text(&mut out, &tensor.name);
            out.extend((tensor.shape.len() as u32).to_le_bytes());
            tensor.shape.iter().rev().for_each(|n| out.extend((*n as u64).to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend((data.len() as u64).to_le_bytes());
            data.extend(values(tensor, seed as u64));
            data.resize(data.len().next_multiple_of(32), 0);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(data);
        out
    }
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn meta(out: &mut Vec<u8>, value: &Meta) {
    let mut put = |kind: u32, bytes: &[u8]| {
        out.extend(kind.to_le_bytes());
        out.extend(bytes);
    };
    match value {
        Meta::U32(n) => put(4, &n.to_le_bytes()),
        Meta::I32(n) => put(5, &n.to_le_bytes()),
        Meta::F32(x) => put(6, &x.to_le_bytes()),
        Meta::Bool(flag) => put(7, &[u8::from(*flag)]),
        Meta::U64(n) => put(10, &n.to_le_bytes()),
        Meta::Text(string) => {
            put(8, &[]);
            text(out, string);
        }
        Meta::List(list) => {
            put(9, &4u32.to_le_bytes());
            out.extend((list.len() as u64).to_le_bytes());
            list.iter().for_each(|n| out.extend(n.to_le_bytes()));
        }
        Meta::Texts(list) => {
            put(9, &8u32.to_le_bytes());
            out.extend((list.len() as u64).to_le_bytes());
            list.iter().for_each(|string| text(out, string));
        }
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
