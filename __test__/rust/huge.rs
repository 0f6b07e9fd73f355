//! Sparse and huge files, made when they are needed: what the reader may take for them, and what
//! later stages must answer.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use node_chord::gguf::{Array, File, Value};

use crate::malformed::{Stage, file};
use crate::special::{Folder, open, refused};
use crate::writer::Gguf;

/// A file that is made by a function.
#[allow(dead_code, reason = "tests of later stages read the rest")]
pub struct Huge {
    /// What it is called.
    pub name: &'static str,
    /// Codes that a refusal may have; none: to be accepted.
    pub codes: &'static [&'static str],
    /// When it must be refused at the latest.
    pub stage: Stage,
    /// Processor time that opening may take.
    pub open_ms_max: u64,
    /// Writes the file.
    pub make: fn(&Folder, &str) -> PathBuf,
}

/// All of them. Make one at a time and remove it: `string_200m.gguf` really has 200 MB.
pub const HUGE: &[Huge] = &[
    huge("sparse_1tb_claim.gguf", &["ERR_MODEL_INVALID"], Stage::Load, 100, sparse_claim),
    huge("sparse_1tb_tail.gguf", &[], Stage::Run, 100, sparse_tail),
    huge("sparse_model_384g.gguf", &["ERR_INSUFFICIENT_MEMORY"], Stage::Load, 100, sparse_model),
    huge("keys_1e6.gguf", &[], Stage::Run, 2000, keys),
    huge("tensors_1e6.gguf", &["ERR_MODEL_INVALID"], Stage::Load, 3000, tensors),
    huge("tokens_4e6.gguf", &["ERR_MODEL_INVALID"], Stage::Load, 5000, tokens),
    huge("string_200m.gguf", &[], Stage::Run, 2000, string),
    huge("template_10m.gguf", &["ERR_TEMPLATE"], Stage::Template, 1000, template),
    huge("template_10m_vars.gguf", &["ERR_TEMPLATE"], Stage::Template, 1000, template_of_variables),
];

const fn huge(
    name: &'static str,
    codes: &'static [&'static str],
    stage: Stage,
    open_ms_max: u64,
    make: fn(&Folder, &str) -> PathBuf,
) -> Huge {
    Huge { name, codes, stage, open_ms_max, make }
}

/// The corpus' valid file, to be changed; its data is not written.
fn base() -> Gguf {
    let file = File::open(&file("ok_base.gguf")).unwrap();
    let keys = file.meta().iter().map(|(key, value)| (key.to_owned(), value.clone()));
    let mut gguf = Gguf::new(keys.collect());
    let first = file.tensors().iter().map(|tensor| tensor.offset).min().unwrap();
    for tensor in file.tensors() {
        let dimensions = tensor.shape.iter().rev().map(|n| *n as u64).collect();
        let offset = tensor.offset - first;
        gguf.tensors.push((tensor.name.clone(), dimensions, tensor.kind.id(), offset));
    }
    gguf
}

/// More than any tensor of the base ends at.
const BASE_DATA_BYTES: u64 = 8192;

/// Writes the header and, for data, zeros that take no room.
fn write(folder: &Folder, name: &str, gguf: &Gguf, data_bytes: u64) -> PathBuf {
    let head = gguf.header();
    folder.sparse(name, &head, head.len() as u64 + data_bytes)
}

fn with(key: &str, value: Value) -> Gguf {
    let mut gguf = base();
    gguf.keys.retain(|(known, _)| known != key);
    gguf.keys.push((key.to_owned(), value));
    gguf
}

fn sparse_tail(folder: &Folder, name: &str) -> PathBuf {
    folder.sparse(name, &fs::read(file("ok_base.gguf")).unwrap(), 1 << 40)
}

/// The embedding really has 1 TB.
fn sparse_claim(folder: &Folder, name: &str) -> PathBuf {
    let mut gguf = base();
    gguf.tensors.retain(|tensor| tensor.0 != "token_embd.weight");
    let rows = (1_u64 << 40) / 18;
    gguf.tensors.push(("token_embd.weight".into(), vec![32, rows], 2, BASE_DATA_BYTES));
    write(folder, name, &gguf, BASE_DATA_BYTES + rows * 18)
}

/// A feed-forward length of 2^30: three tensors of 128 GiB.
fn sparse_model(folder: &Folder, name: &str) -> PathBuf {
    let mut gguf = with("llama.feed_forward_length", Value::U32(1 << 30));
    let is_big =
        |name: &str| ["ffn_gate.", "ffn_up.", "ffn_down."].iter().any(|n| name.contains(n));
    let big: Vec<_> = gguf.tensors.extract_if(.., |tensor| is_big(&tensor.0)).collect();
    assert_eq!(big.len(), 3);
    for (index, (name, ..)) in (0..).zip(big) {
        let rows = if name.contains("down") { vec![1 << 30, 32] } else { vec![32, 1 << 30] };
        gguf.tensors.push((name, rows, 0, BASE_DATA_BYTES + index * (128 << 30)));
    }
    write(folder, name, &gguf, BASE_DATA_BYTES + (384 << 30))
}

fn keys(folder: &Folder, name: &str) -> PathBuf {
    let mut gguf = base();
    gguf.keys.extend((0..1_000_000).map(|k| (format!("x.k{k:08}"), Value::U64(k))));
    // Whole, so that it can run.
    let data = fs::read(file("ok_base.gguf")).unwrap();
    let start = File::open(&file("ok_base.gguf")).unwrap();
    let start = start.tensors().iter().map(|tensor| tensor.offset).min().unwrap();
    let path = folder.path(name);
    fs::write(&path, [gguf.header(), data[start as usize..].to_vec()].concat()).unwrap();
    path
}

fn tensors(folder: &Folder, name: &str) -> PathBuf {
    let mut gguf = base();
    gguf.tensors = (0..1_000_000).map(|k| (format!("t{k:08}"), vec![32], 0, k * 128)).collect();
    write(folder, name, &gguf, 128_000_000)
}

fn tokens(folder: &Folder, name: &str) -> PathBuf {
    const N: usize = 4_000_000;
    let texts = (0..N).map(|k| format!("{k:08}")).collect();
    let mut gguf = with("tokenizer.ggml.tokens", Value::Array(Array::Strings(texts)));
    for (key, value) in &mut gguf.keys {
        match key.as_str() {
            "tokenizer.ggml.scores" => *value = vec![0.0_f32; N].into(),
            "tokenizer.ggml.token_type" => *value = vec![1_i32; N].into(),
            _ => {}
        }
    }
    write(folder, name, &gguf, BASE_DATA_BYTES)
}

fn string(folder: &Folder, name: &str) -> PathBuf {
    let gguf = with("general.description", Value::String(vec![b'd'; 200_000_000]));
    write(folder, name, &gguf, BASE_DATA_BYTES)
}

fn template(folder: &Folder, name: &str) -> PathBuf {
    let text = format!("{{# {} #}}", "x".repeat(10_000_000));
    let gguf = with("tokenizer.chat_template", Value::String(text.into_bytes()));
    write(folder, name, &gguf, BASE_DATA_BYTES)
}

fn template_of_variables(folder: &Folder, name: &str) -> PathBuf {
    let text = "{{a}} ".repeat(1_700_000);
    let gguf = with("tokenizer.chat_template", Value::String(text.into_bytes()));
    write(folder, name, &gguf, BASE_DATA_BYTES)
}

#[test]
fn huge_files_open_for_what_their_headers_justify() {
    let folder = Folder::new("huge");
    for huge in HUGE {
        let path = (huge.make)(&folder, huge.name);
        let (file, cost) = open(&path);
        let file = file.unwrap();
        let first = file.tensors().iter().map(|tensor| tensor.offset).min().unwrap();
        assert!(cost.time < Duration::from_millis(huge.open_ms_max), "{}", huge.name);
        // The tally of the corpus: 8 times the header, and buffers.
        let bytes = cost.peak_bytes as u64;
        assert!(bytes < 8 * first + (1 << 20), "{}: {bytes} bytes of {first}", huge.name);
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_string_as_long_as_a_sparse_file_is_refused() {
    let folder = Folder::new("long-string");
    let name = "general.name";
    let mut head = Gguf::new(vec![(name.into(), Value::from(""))]).header();
    // Header, the key with its length, the value's type.
    let place = 24 + 8 + name.len() + 4;
    head[place..place + 8].copy_from_slice(&(1_u64 << 39).to_le_bytes());
    refused(&folder.sparse("string.gguf", &head, 1 << 40), "ERR_GGUF_CORRUPT", name);
}

#[test]
fn deep_nesting_overflows_no_stack() {
    let folder = Folder::new("nesting");
    let mut gguf = Gguf::new(vec![("general.x".into(), Value::Array(Array::Arrays(vec![])))]);
    gguf.alignment = 1;
    let mut bytes = gguf.header();
    // The one array, of none, becomes a million arrays of one each.
    bytes.truncate(bytes.len() - 12);
    for _ in 0..1_000_000 {
        bytes.extend(9_u32.to_le_bytes());
        bytes.extend(1_u64.to_le_bytes());
    }
    fs::write(folder.path("m.gguf"), bytes).unwrap();
    refused(&folder.path("m.gguf"), "ERR_GGUF_CORRUPT", "deeper than 8");
}
