//! What can be had of a file without its weights: its tokenizer, and what it says of itself.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::backend::KvType;
use crate::error::{Code, Error, Result};
use crate::gguf::File;
use crate::load::template_source;
use crate::place::Io;
use crate::tokenizer::Tokenizer;
use crate::tools::chat::Chat;
use crate::tools::facts;

/// What a file says of itself.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// JSON of `GgufInfo` without the metadata.
    pub info: String,
    /// See [`facts::metadata`].
    pub metadata: Vec<Vec<String>>,
}

/// Opens the tokenizer of a file. Errors: those of reading it and of its vocabulary; `ABORT_ERR`.
pub fn chat(path: &Path, cancel: &AtomicBool) -> Result<Chat> {
    let file = File::open(path)?;
    go_on(cancel)?;
    let tokenizer = Tokenizer::from_meta(file.meta())?;
    Ok(Chat::new(Arc::new(tokenizer), template_source(file.meta())))
}

/// Reads a file's header. Errors: those of reading it; `ABORT_ERR`.
pub fn inspect(path: &Path, cancel: &AtomicBool) -> Result<Inspection> {
    let file = File::open(path)?;
    go_on(cancel)?;
    Ok(Inspection { info: facts::file(&file), metadata: facts::metadata(file.meta()) })
}

/// A type of the KV cache by its name. Errors: `ERR_INVALID_ARG`.
pub fn kv_type(name: &str) -> Result<KvType> {
    let found = KvType::ALL.into_iter().find(|kind| kind.name() == name);
    found.ok_or_else(|| Error::internal("kvType", format!("'{name}' was not refused")))
}

/// The way to read weights behind a checked name.
///
/// # Errors
/// `ERR_INTERNAL` for another name.
pub fn io(name: &str) -> Result<Io> {
    let ways = [
        ("auto", Io::Auto),
        ("mmap", Io::Mapped),
        ("direct", Io::Direct),
        ("buffered", Io::Buffered),
    ];
    let found = ways.into_iter().find(|(known, _)| *known == name).map(|(_, way)| way);
    found.ok_or_else(|| Error::internal("io", format!("'{name}' was not refused")))
}

/// Errors `ABORT_ERR` once it was called off.
pub fn go_on(cancel: &AtomicBool) -> Result<()> {
    if cancel.load(Ordering::Relaxed) {
        return Err(Error::new(Code::Abort, "The operation was aborted"));
    }
    Ok(())
}
