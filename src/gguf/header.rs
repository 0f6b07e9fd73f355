//! The header of one file: magic, version, counts, metadata, tensor directory. Checks every rule
//! of the container that one file alone can break; `split.rs` has those between parts.

use std::fmt;
use std::io::Read;

use crate::error::{Code, Error, Result};
use crate::quant::TensorType;

use super::cursor::{Cursor, Fault, push};
use super::file::Tensor;
use super::meta::Meta;
use super::recognise::{HEAD_BYTES, recognise};
use super::value::Value;

/// Least bytes of a key with its value, and of a tensor's entry.
const KEY_BYTES_MIN: u64 = 13;
const TENSOR_BYTES_MIN: u64 = 32;
/// Keys, and tensors, that a file may have: a hundred times what models have.
const COUNT_MAX: u64 = 1 << 21;
const KEY_LENGTH_MAX: u64 = 65_535;
const NAME_LENGTH_MAX: u64 = 64;
const DIMENSIONS_MAX: u32 = 4;
const ALIGNMENT_DEFAULT: u32 = 32;

/// What one file says about itself.
#[derive(Debug)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// Keys and values.
    pub meta: Meta,
    /// Tensors in the order of the directory, of part 0; offsets are absolute.
    pub tensors: Vec<Tensor>,
}

impl Header {
    /// Reads a header from the first byte of a file of `bytes` bytes; `path` is for messages.
    ///
    /// # Errors
    /// `ERR_NOT_GGUF`, `ERR_GGUF_VERSION`, `ERR_GGUF_CORRUPT`, `ERR_UNSUPPORTED_TENSOR_TYPE`,
    /// `ERR_IO`; each names the file and the key, tensor or byte.
    pub fn read(reader: impl Read, bytes: u64, path: &str) -> Result<Self> {
        let mut cursor = Cursor::new(reader, bytes);
        let plain = |fault: Fault| fault.error(path, None);
        magic(&mut cursor, path)?;
        let version = version(&mut cursor).map_err(plain)?;
        let (n_tensors, n_keys) = counts(&mut cursor).map_err(plain)?;
        let mut entries = Vec::new();
        for index in 0..n_keys {
            let entry = entry(&mut cursor, index, path)?;
            push(&mut entries, entry).map_err(plain)?;
        }
        let meta = Meta::new(path, entries)?;
        let alignment = alignment(&meta)?;
        let mut tensors = Vec::new();
        for index in 0..n_tensors {
            let tensor = tensor(&mut cursor, index, alignment, path)?;
            push(&mut tensors, tensor).map_err(plain)?;
        }
        let start = cursor.byte().checked_next_multiple_of(alignment.into()).unwrap_or(u64::MAX);
        place(&mut tensors, start, bytes, path)?;
        Ok(Header { version, meta, tensors })
    }
}

fn magic<R: Read>(cursor: &mut Cursor<R>, path: &str) -> Result<()> {
    let plain = |fault: Fault| fault.error(path, None);
    let first = cursor.left().min(4);
    let mut head = cursor.numbers(first, u8::from_le_bytes).map_err(plain)?;
    if head == b"GGUF" {
        return Ok(());
    }
    let more = cursor.left().min(HEAD_BYTES as u64);
    head.extend(cursor.numbers(more, u8::from_le_bytes).map_err(plain)?);
    Err(Error::at(Code::NotGguf, path, "byte 0", format!("this is {}", recognise(&head))))
}

fn version<R: Read>(cursor: &mut Cursor<R>) -> Result<u32, Fault> {
    let byte = cursor.byte();
    let version = cursor.u32()?;
    let what = match version {
        2 | 3 => return Ok(version),
        _ if matches!(version.swap_bytes(), 1..=3) => {
            "a big-endian GGUF file; only little-endian ones are supported".to_owned()
        }
        _ => format!("GGUF version {version}; 2 and 3 are known"),
    };
    Err(Fault::Other { code: Code::GgufVersion, byte, what })
}

fn counts<R: Read>(cursor: &mut Cursor<R>) -> Result<(u64, u64), Fault> {
    let byte = cursor.byte();
    let n_tensors = cursor.u64()?;
    let n_keys = cursor.u64()?;
    let left = cursor.left();
    let tensors = n_tensors.checked_mul(TENSOR_BYTES_MIN);
    let keys = n_keys.checked_mul(KEY_BYTES_MIN);
    let total = tensors.zip(keys).and_then(|(tensors, keys)| tensors.checked_add(keys));
    let what = if total.is_none_or(|total| total > left) {
        format!("{n_tensors} tensors and {n_keys} keys in {left} bytes")
    } else if n_tensors > COUNT_MAX || n_keys > COUNT_MAX {
        format!("{n_tensors} tensors and {n_keys} keys; at most {COUNT_MAX} of each are read")
    } else {
        return Ok((n_tensors, n_keys));
    };
    Err(Fault::Corrupt { byte, what })
}

/// Where a fault lies, for messages.
enum Place<'a> {
    KeyIndex(u64),
    Key(&'a str),
    TensorIndex(u64),
    Tensor(&'a str),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::KeyIndex(index) => write!(f, "key number {index}"),
            Place::Key(key) => write!(f, "key '{}'", cut(key)),
            Place::TensorIndex(index) => write!(f, "tensor number {index}"),
            Place::Tensor(name) => write!(f, "tensor '{name}'"),
        }
    }
}

/// Keys may have 65,535 bytes; a message shows the first characters.
pub(super) fn cut(key: &str) -> &str {
    let end = key.char_indices().nth(100).map_or(key.len(), |(byte, _)| byte);
    key.get(..end).unwrap_or(key)
}

fn entry<R: Read>(cursor: &mut Cursor<R>, index: u64, path: &str) -> Result<(String, Value)> {
    let number = Place::KeyIndex(index);
    let key = name(cursor, "a key", KEY_LENGTH_MAX).map_err(|f| f.error(path, Some(&number)))?;
    let place = Place::Key(&key);
    let value = cursor.u32().and_then(|kind| Value::read(cursor, kind));
    let value = value.map_err(|fault| fault.error(path, Some(&place)))?;
    Ok((key, value))
}

/// A key or a tensor's name: not empty, UTF-8, without NUL.
fn name<R: Read>(cursor: &mut Cursor<R>, what: &str, bytes_max: u64) -> Result<String, Fault> {
    let byte = cursor.byte();
    let bytes = cursor.string(what, bytes_max)?;
    let what = if bytes.is_empty() {
        format!("{what} of no bytes")
    } else if bytes.contains(&0) {
        format!("{what} with a NUL byte")
    } else {
        match String::from_utf8(bytes) {
            Ok(name) => return Ok(name),
            Err(_) => format!("{what} that is not UTF-8"),
        }
    };
    Err(Fault::Corrupt { byte, what })
}

fn alignment(meta: &Meta) -> Result<u32> {
    const KEY: &str = "general.alignment";
    let what = match meta.get(KEY) {
        None => return Ok(ALIGNMENT_DEFAULT),
        Some(Value::U32(bytes)) if bytes.is_power_of_two() && (8..=65_536).contains(bytes) => {
            return Ok(*bytes);
        }
        Some(Value::U32(bytes)) => bytes.to_string(),
        Some(other) => format!("of type {}", other.kind()),
    };
    let what = format!("is {what}, not a u32 that is a power of two from 8 to 65536");
    Err(Error::at(Code::GgufCorrupt, meta.path(), format!("key '{KEY}'"), what))
}

/// An entry of the directory; its offset counts from the start of the data.
fn tensor<R: Read>(
    cursor: &mut Cursor<R>,
    index: u64,
    alignment: u32,
    path: &str,
) -> Result<Tensor> {
    let number = Place::TensorIndex(index);
    let name = name(cursor, "a tensor's name", NAME_LENGTH_MAX)
        .map_err(|fault| fault.error(path, Some(&number)))?;
    let entry = described(cursor, alignment);
    let (kind, shape, offset, bytes) =
        entry.map_err(|fault| fault.error(path, Some(&Place::Tensor(&name))))?;
    Ok(Tensor { name, kind, shape, part: 0, offset, bytes })
}

type Described = (TensorType, Vec<usize>, u64, u64);

fn described<R: Read>(cursor: &mut Cursor<R>, alignment: u32) -> Result<Described, Fault> {
    let n_dims = cursor.u32()?;
    if !(1..=DIMENSIONS_MAX).contains(&n_dims) {
        return Err(cursor.corrupt(format!("{n_dims} dimensions, not 1 to {DIMENSIONS_MAX}")));
    }
    let mut shape = Vec::with_capacity(DIMENSIONS_MAX as usize);
    for _ in 0..n_dims {
        let length = cursor.u64()?;
        let length = usize::try_from(length).ok().filter(|length| *length > 0);
        shape.push(length.ok_or_else(|| cursor.corrupt("a dimension that is 0 or too large"))?);
    }
    let byte = cursor.byte();
    let id = cursor.u32()?;
    let kind = TensorType::from_id(id).ok_or_else(|| Fault::Other {
        code: Code::UnsupportedTensorType,
        byte,
        what: format!("tensor type {id}{}", known(id)),
    })?;
    let offset = cursor.u64()?;
    if !offset.is_multiple_of(alignment.into()) {
        return Err(cursor.corrupt(format!("offset {offset} is not aligned to {alignment}")));
    }
    let row = shape.first().copied().unwrap_or(0);
    let bytes = match kind.row_bytes(row) {
        Some(bytes) => shape.iter().skip(1).try_fold(bytes, |bytes, n| bytes.checked_mul(*n)),
        None if row.is_multiple_of(kind.block_len()) => None,
        None => {
            let (name, block) = (kind.name(), kind.block_len());
            let what = format!("rows of {row} values, but {name} stores blocks of {block}");
            return Err(cursor.corrupt(what));
        }
    };
    let bytes = bytes.and_then(|bytes| u64::try_from(bytes).ok()).filter(|n| *n < 1 << 63);
    let bytes = bytes.ok_or_else(|| cursor.corrupt("a shape of more than 2^63 bytes"))?;
    while shape.len() > 1 && shape.last() == Some(&1) {
        shape.pop();
    }
    shape.reverse();
    Ok((kind, shape, offset, bytes))
}

/// What is known of a type that no weight may have.
fn known(id: u32) -> &'static str {
    match id {
        4 | 5 | 31..=33 | 36..=38 => ", which GGML has removed",
        9 => " (Q8_1), which no weight may have",
        24..=28 => " (I8, I16, I32, I64 or F64), which no weight may have",
        _ => ", which is unknown",
    }
}

/// Makes offsets absolute; tensors must lie in the file, and no two may overlap.
fn place(tensors: &mut [Tensor], start: u64, file_bytes: u64, path: &str) -> Result<()> {
    let refused = |name: &str, what: String| {
        Err(Error::at(Code::GgufCorrupt, path, Place::Tensor(name), what))
    };
    for tensor in &mut *tensors {
        let Tensor { name, bytes, .. } = &*tensor;
        let offset = start.checked_add(tensor.offset);
        let end = offset.and_then(|offset| offset.checked_add(*bytes));
        match offset.zip(end.filter(|end| *end <= file_bytes)) {
            Some((offset, _)) => tensor.offset = offset,
            None => {
                let from = offset.map_or("2^64".to_owned(), |offset| offset.to_string());
                let what = format!(
                    "{bytes} bytes from byte {from} on, but the file ends at byte {file_bytes}; \
                     an unfinished download?"
                );
                return refused(name, what);
            }
        }
    }
    let mut order: Vec<&Tensor> = tensors.iter().collect();
    order.sort_unstable_by_key(|tensor| tensor.offset);
    for (before, tensor) in order.iter().zip(order.iter().skip(1)) {
        if before.offset.saturating_add(before.bytes) > tensor.offset {
            let what = format!("overlaps tensor '{}'", crate::error::shown(&before.name));
            return refused(&tensor.name, what);
        }
    }
    Ok(())
}
