//! An open model: one file, or all parts of a split one. Keeps every handle, so that later reads
//! see the same files even if the names point elsewhere by then.

use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Code, Error, Result};
use crate::quant::TensorType;

use super::header::Header;
use super::meta::Meta;
use super::source;
use super::split;

/// What a header is read by.
const BUFFER_BYTES: usize = 128 << 10;

/// A model's files with what their headers say.
#[derive(Debug)]
pub struct File {
    version: u32,
    meta: Meta,
    tensors: Vec<Tensor>,
    /// Indices of the tensors, by name.
    order: Vec<u32>,
    parts: Vec<Part>,
}

/// One file of a model, open.
#[derive(Clone, Debug)]
pub struct Part {
    /// As given, or as derived for the later parts.
    pub path: PathBuf,
    /// Its handle. Read at positions; nobody owns the handle's own position.
    pub file: Arc<fs::File>,
    /// Its length when it was opened.
    pub bytes: u64,
}

/// An entry of the tensor directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// The name, verbatim.
    pub name: String,
    /// How rows are stored.
    pub kind: TensorType,
    /// Outermost first; outer dimensions of 1 are left out, so `[n_out, n_in]` or `[n]`.
    pub shape: Vec<usize>,
    /// Index of the part that holds it.
    pub part: u32,
    /// First byte in that part.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

impl File {
    /// Opens a model by its only file or by the first of its parts; reads no weights.
    ///
    /// # Errors
    /// `ERR_FILE_NOT_FOUND`, `ERR_FILE_UNREADABLE`, `ERR_NOT_GGUF`, `ERR_GGUF_VERSION`,
    /// `ERR_GGUF_CORRUPT`, `ERR_UNSUPPORTED_TENSOR_TYPE`, `ERR_IO`; `ERR_MODEL_INVALID` when parts
    /// do not belong together.
    pub fn open(path: &Path) -> Result<Self> {
        let (header, part) = read(path)?;
        let Header { version, meta, mut tensors } = header;
        let mut parts = vec![part];
        for (number, path) in split::others(path, &meta)? {
            let (header, part) = read_other(&path, number)?;
            split::check(&meta, &header.meta, number)?;
            let index = u32::try_from(parts.len()).unwrap_or(u32::MAX);
            tensors.extend(header.tensors.into_iter().map(|t| Tensor { part: index, ..t }));
            parts.push(part);
        }
        let order = by_name(&tensors, &parts)?;
        split::check_count(&meta, parts.len(), tensors.len())?;
        Ok(File { version, meta, tensors, order, parts })
    }

    /// The path that was opened, for messages.
    #[must_use]
    pub fn path(&self) -> &str {
        self.meta.path()
    }

    /// Version of the format: 2 or 3.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Metadata, of the first part.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Tensors of all parts, in order.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// A tensor by name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        let key = |index: &u32| name_of(&self.tensors, *index);
        let found = self.order.binary_search_by_key(&name, key).ok()?;
        self.tensors.get(*self.order.get(found)? as usize)
    }

    /// The files.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Bytes of all parts.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts.iter().fold(0, |sum, part| sum.saturating_add(part.bytes))
    }
}

fn read(path: &Path) -> Result<(Header, Part)> {
    let (file, bytes) = source::open(path)?;
    let reader = BufReader::with_capacity(BUFFER_BYTES, &file);
    let header = Header::read(reader, bytes, &path.to_string_lossy())?;
    Ok((header, Part { path: path.to_owned(), file: Arc::new(file), bytes }))
}

fn read_other(path: &Path, number: u32) -> Result<(Header, Part)> {
    read(path).map_err(|mut error| {
        if error.code == Code::FileNotFound {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let name = crate::error::shown(&name);
            error.message = format!("{}; part {number} of the model, '{name}'", error.message);
        }
        error
    })
}

fn name_of(tensors: &[Tensor], index: u32) -> &str {
    tensors.get(index as usize).map_or("", |tensor| tensor.name.as_str())
}

/// Indices by name. A name given twice is refused.
fn by_name(tensors: &[Tensor], parts: &[Part]) -> Result<Vec<u32>> {
    let count = u32::try_from(tensors.len()).unwrap_or(u32::MAX);
    let mut order: Vec<u32> = (0..count).collect();
    order.sort_unstable_by_key(|index| (name_of(tensors, *index), *index));
    for (first, second) in order.iter().zip(order.iter().skip(1)) {
        let name = name_of(tensors, *second);
        if name_of(tensors, *first) == name {
            let part = |index: u32| tensors.get(index as usize).map_or(0, |tensor| tensor.part);
            let path = parts.get(part(*second) as usize).map(|part| part.path.to_string_lossy());
            let (code, what) = if part(*first) == part(*second) {
                (Code::GgufCorrupt, "stands there twice".to_owned())
            } else {
                let first = part(*first).saturating_add(1);
                (Code::ModelInvalid, format!("is in part {first} of the model too"))
            };
            let place = format!("tensor '{name}'");
            return Err(Error::at(code, &path.unwrap_or_default(), place, what));
        }
    }
    Ok(order)
}
