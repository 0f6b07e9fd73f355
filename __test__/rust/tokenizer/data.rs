//! Vocabularies and cases: from `__test__/data/vocab`, or else from `../shared` beside the
//! repository, where there are more.

use std::io::Read;
use std::path::{Path, PathBuf};

use node_chord::gguf;
use node_chord::tokenizer::Tokenizer;
use serde_json::Value;

/// The vocabularies that lie in the repository.
pub const OURS: [&str; 6] = ["llama-spm", "llama-bpe", "gpt-2", "qwen2", "phi-3", "deepseek-llm"];

/// Those of the same kinds that only the shared folder has.
pub const SHARED: [&str; 11] = [
    "falcon",
    "starcoder",
    "command-r",
    "mpt",
    "refact",
    "deepseek-coder",
    "qwen35",
    "gpt-neox",
    "aquila",
    "baichuan",
    "gemma-4",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A folder of `../shared/oracles`, if it is there.
pub fn shared(folder: &str) -> Option<PathBuf> {
    let path = root().join("../shared/oracles").join(folder);
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: {} is not there", path.display());
    None
}

/// The bytes of a file of the data folder, or of the shared one; decompressed.
pub fn read(name: &str) -> Option<Vec<u8>> {
    let ours = root().join("__test__/data/vocab").join(format!("{name}.zst"));
    let path = if ours.is_file() {
        ours
    } else {
        let folder = shared("vocab")?;
        let plain = folder.join(name);
        if plain.is_file() {
            return Some(std::fs::read(plain).unwrap());
        }
        folder.join(format!("{name}.zst"))
    };
    let packed = std::fs::read(path).unwrap();
    let mut bytes = Vec::new();
    let mut decoder = ruzstd::decoding::StreamingDecoder::new(packed.as_slice()).unwrap();
    decoder.read_to_end(&mut bytes).unwrap();
    Some(bytes)
}

/// One JSON value a line.
pub fn lines(name: &str) -> Option<Vec<Value>> {
    let bytes = read(name)?;
    let text = String::from_utf8(bytes).unwrap();
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// A vocabulary's tokenizer, by way of a file as `gguf` reads files only.
pub fn tokenizer(name: &str) -> Option<Tokenizer> {
    let bytes = read(&format!("{name}.gguf"))?;
    let unique = format!("{name}-{}-{:?}.gguf", std::process::id(), std::thread::current().id());
    let path = std::env::temp_dir().join(unique.replace(['(', ')'], ""));
    std::fs::write(&path, bytes).unwrap();
    let file = gguf::File::open(&path);
    std::fs::remove_file(&path).unwrap();
    Some(Tokenizer::from_meta(file.unwrap().meta()).unwrap())
}

/// Base64 with padding.
pub fn base64(text: &str) -> Vec<u8> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = 0_u32;
    let mut count = 0;
    let mut out = Vec::new();
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let value = alphabet.iter().position(|known| *known == byte).unwrap();
        bits = (bits << 6) | u32::try_from(value).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from((bits >> count) & 0xFF).unwrap());
        }
    }
    out
}
