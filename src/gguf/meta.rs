//! Metadata by key, with typed getters whose errors name the key and the file.

use std::fmt;

use crate::error::{Code, Error, Result};

use super::header::cut;
use super::value::{Array, Strings, Value};

/// A list with an entry a layer may not be longer.
const LAYERS_MAX: usize = 65_536;

/// Keys and values of a model, in the file's order.
#[derive(Clone, Debug)]
pub struct Meta {
    path: String,
    entries: Vec<(String, Value)>,
    /// Indices of the entries, by key.
    order: Vec<u32>,
}

impl Meta {
    /// Takes the entries of one file.
    ///
    /// # Errors
    /// `ERR_GGUF_CORRUPT` when a key stands there twice.
    pub(super) fn new(path: &str, entries: Vec<(String, Value)>) -> Result<Self> {
        let mut meta = Meta { path: path.to_owned(), entries, order: Vec::new() };
        let count = u32::try_from(meta.entries.len()).unwrap_or(u32::MAX);
        let mut order: Vec<u32> = (0..count).collect();
        order.sort_unstable_by_key(|index| meta.key(*index));
        let twice = order.iter().zip(order.iter().skip(1));
        if let Some((first, _)) = twice.into_iter().find(|(a, b)| meta.key(**a) == meta.key(**b)) {
            return Err(meta.error_of(Code::GgufCorrupt, meta.key(*first), "stands there twice"));
        }
        meta.order = order;
        Ok(meta)
    }

    /// Metadata that no file holds, for tests. A key given twice has its first value.
    #[must_use]
    pub fn from_pairs(pairs: &[(&str, Value)]) -> Self {
        let mut entries: Vec<(String, Value)> = Vec::new();
        for (key, value) in pairs {
            if entries.iter().all(|(known, _)| known != key) {
                entries.push(((*key).to_owned(), value.clone()));
            }
        }
        let empty = Meta { path: "test.gguf".to_owned(), entries: Vec::new(), order: Vec::new() };
        Meta::new("test.gguf", entries).unwrap_or(empty)
    }

    /// The file's path, for messages.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        let found = self.order.binary_search_by_key(&key, |index| self.key(*index)).ok()?;
        let index = *self.order.get(found)?;
        self.entries.get(index as usize).map(|(_, value)| value)
    }

    /// Everything, in the file's order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// An integer that must be there.
    ///
    /// # Errors
    /// `ERR_MODEL_INVALID`, as of every getter here: missing, another type, out of range.
    pub fn u32(&self, key: &str) -> Result<u32> {
        self.opt_u32(key)?.ok_or_else(|| self.missing(key))
    }

    /// An integer of any width whose value fits.
    ///
    /// # Errors
    /// `ERR_MODEL_INVALID`.
    pub fn opt_u32(&self, key: &str) -> Result<Option<u32>> {
        self.get(key).map(|value| self.as_u32(key, value)).transpose()
    }

    /// A finite float that must be there.
    ///
    /// # Errors
    /// `ERR_MODEL_INVALID`.
    pub fn f32(&self, key: &str) -> Result<f32> {
        self.opt_f32(key)?.ok_or_else(|| self.missing(key))
    }

    /// A float, finite as f32.
    ///
    /// # Errors
    /// `ERR_MODEL_INVALID`.
    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.float().ok_or_else(|| self.wrong(key, value, "a float"))?;
        self.finite(key, number).map(Some)
    }

    /// A bool.
    ///
    /// # Errors
    /// `ERR_MODEL_INVALID`.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(value) => Err(self.wrong(key, value, "a bool")),
        }
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// `ERR_MODEL_INVALID`.
    pub fn str(&self, key: &str) -> Result<&str> {
        self.opt_str(key)?.ok_or_else(|| self.missing(key))
    }

    /// A text, which must be UTF-8. For text that is only shown see [`Meta::opt_bytes`].
    ///
    /// # Errors
    /// `ERR_MODEL_INVALID`.
    pub fn opt_str(&self, key: &str) -> Result<Option<&str>> {
        let Some(bytes) = self.opt_bytes(key)? else { return Ok(None) };
        let text = std::str::from_utf8(bytes);
        text.map(Some).map_err(|_| self.error(key, "is not UTF-8"))
    }

    /// The bytes of a text.
    ///
    /// # Errors
    /// `ERR_MODEL_INVALID`.
    pub fn opt_bytes(&self, key: &str) -> Result<Option<&[u8]>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(bytes)) => Ok(Some(bytes)),
            Some(value) => Err(self.wrong(key, value, "a string")),
        }
    }

    /// Integers of any width.
    ///
    /// # Errors
    /// `ERR_MODEL_INVALID`.
    pub fn opt_u32s(&self, key: &str) -> Result<Option<Vec<u32>>> {
        self.integers(key, |number| u32::try_from(number).ok())
    }

    /// Integers of any width.
    ///
    /// # Errors
    /// `ERR_MODEL_INVALID`.
    pub fn opt_i32s(&self, key: &str) -> Result<Option<Vec<i32>>> {
        self.integers(key, |number| i32::try_from(number).ok())
    }

    /// Finite floats.
    ///
    /// # Errors
    /// `ERR_MODEL_INVALID`.
    pub fn opt_f32s(&self, key: &str) -> Result<Option<Vec<f32>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::F32(list))) => {
                list.iter().map(|n| self.finite(key, (*n).into())).collect::<Result<_>>().map(Some)
            }
            Some(Value::Array(Array::F64(list))) => {
                list.iter().map(|n| self.finite(key, *n)).collect::<Result<_>>().map(Some)
            }
            Some(value) => Err(self.wrong(key, value, "an array of floats")),
        }
    }

    /// An integer for each of `n` layers: one for all, or a list of that length.
    ///
    /// # Errors
    /// `ERR_MODEL_INVALID`.
    pub fn u32_per_layer(&self, key: &str, n: usize) -> Result<Option<Vec<u32>>> {
        if n > LAYERS_MAX {
            return Err(self.error(key, format!("for {n} layers; {LAYERS_MAX} are supported")));
        }
        if !matches!(self.get(key), Some(Value::Array(_))) {
            return Ok(self.opt_u32(key)?.map(|number| vec![number; n]));
        }
        let list = self.opt_u32s(key)?.unwrap_or_default();
        if list.len() != n {
            return Err(self.error(key, format!("has {} entries for {n} layers", list.len())));
        }
        Ok(Some(list))
    }

    /// A list of strings.
    ///
    /// # Errors
    /// `ERR_MODEL_INVALID`.
    pub fn opt_strings(&self, key: &str) -> Result<Option<&Strings>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(Array::Strings(list))) => Ok(Some(list)),
            Some(value) => Err(self.wrong(key, value, "an array of strings")),
        }
    }

    /// An error about a key, for those who check what it means.
    #[must_use]
    pub fn error(&self, key: &str, what: impl fmt::Display) -> Error {
        self.error_of(Code::ModelInvalid, key, what)
    }

    /// The same with another code.
    #[must_use]
    pub fn error_of(&self, code: Code, key: &str, what: impl fmt::Display) -> Error {
        Error::at(code, &self.path, format!("key '{}'", cut(key)), what)
    }

    fn key(&self, index: u32) -> &str {
        self.entries.get(index as usize).map_or("", |(key, _)| key)
    }

    fn missing(&self, key: &str) -> Error {
        self.error(key, "is missing")
    }

    fn wrong(&self, key: &str, value: &Value, expected: &str) -> Error {
        self.error(key, format!("has type {}; {expected} is expected", value.kind()))
    }

    fn as_u32(&self, key: &str, value: &Value) -> Result<u32> {
        let number = value.integer().ok_or_else(|| self.wrong(key, value, "an integer"))?;
        u32::try_from(number).map_err(|_| self.error(key, format!("is {number}, not a u32")))
    }

    #[allow(clippy::cast_possible_truncation, reason = "what does not fit becomes infinite")]
    fn finite(&self, key: &str, number: f64) -> Result<f32> {
        let narrow = number as f32;
        if narrow.is_finite() {
            return Ok(narrow);
        }
        Err(self.error(key, format!("holds {number}; a finite f32 is expected")))
    }

    fn integers<T>(&self, key: &str, fit: impl Fn(i128) -> Option<T>) -> Result<Option<Vec<T>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let each = |number: i128| {
            fit(number).ok_or_else(|| self.error(key, format!("holds {number}, out of range")))
        };
        fn widen<N: Copy + Into<i128>>(list: &[N]) -> impl Iterator<Item = i128> {
            list.iter().map(|number| (*number).into())
        }
        match value {
            Value::Array(Array::U8(list)) => widen(list).map(each).collect::<Result<_>>(),
            Value::Array(Array::I8(list)) => widen(list).map(each).collect(),
            Value::Array(Array::U16(list)) => widen(list).map(each).collect(),
            Value::Array(Array::I16(list)) => widen(list).map(each).collect(),
            Value::Array(Array::U32(list)) => widen(list).map(each).collect(),
            Value::Array(Array::I32(list)) => widen(list).map(each).collect(),
            Value::Array(Array::U64(list)) => widen(list).map(each).collect(),
            Value::Array(Array::I64(list)) => widen(list).map(each).collect(),
            other => return Err(self.wrong(key, other, "an array of integers")),
        }
        .map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> Meta {
        Meta::from_pairs(&[
            ("z.n", Value::I64(7)),
            ("a.minus", Value::I8(-1)),
            ("f", Value::F64(0.5)),
            ("nan", Value::F32(f32::NAN)),
            ("list", Value::Array(Array::U16(vec![1, 2]))),
            ("text", Value::from("hello")),
            ("bytes", Value::String(vec![0xff])),
            ("words", Value::from(["a", "", "bc"].iter().collect::<Strings>())),
        ])
    }

    #[test]
    fn getters_read_by_value_and_name_key_and_file() {
        let meta = meta();
        assert_eq!(meta.u32("z.n"), Ok(7));
        assert_eq!(meta.opt_u32("none"), Ok(None));
        assert_eq!(meta.f32("f"), Ok(0.5));
        assert_eq!(meta.str("text"), Ok("hello"));
        assert_eq!(meta.opt_u32s("list"), Ok(Some(vec![1, 2])));
        assert_eq!(meta.u32_per_layer("list", 2), Ok(Some(vec![1, 2])));
        assert_eq!(meta.u32_per_layer("z.n", 3), Ok(Some(vec![7; 3])));
        let words = meta.opt_strings("words").unwrap().unwrap();
        assert_eq!(words.iter().collect::<Vec<_>>(), [&b"a"[..], b"", b"bc"]);
        let refused = |error: Option<Error>, text: &str| {
            let error = error.expect(text);
            assert_eq!(error.code, Code::ModelInvalid);
            assert!(error.message.contains("test.gguf"), "{error}");
            assert!(error.message.contains(text), "{error}");
        };
        refused(meta.u32("a.minus").err(), "key 'a.minus': is -1");
        refused(meta.u32("none").err(), "key 'none': is missing");
        refused(meta.u32("text").err(), "string; an integer");
        refused(meta.f32("z.n").err(), "a float");
        refused(meta.f32("nan").err(), "NaN");
        refused(meta.str("bytes").err(), "UTF-8");
        refused(meta.u32_per_layer("list", 3).err(), "2 entries for 3 layers");
    }

    #[test]
    fn order_is_the_files() {
        let keys: Vec<String> = meta().iter().map(|(key, _)| key.to_owned()).collect();
        assert!(keys.starts_with(&["z.n", "a.minus", "f"].map(str::to_owned)));
    }
}
