//! The keys of an architecture's name space, `llama.*`, read by their short names. What nobody
//! asked for is refused at the end: a key that is not understood may change the mathematics.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::error::{Code, Error, Result};
use crate::gguf::{Array, Meta, Value};

/// Reads keys and remembers which.
pub struct Keys<'a> {
    meta: &'a Meta,
    prefix: String,
    read: BTreeSet<String>,
}

impl<'a> Keys<'a> {
    /// The keys that begin with the architecture's name and a dot.
    pub fn new(meta: &'a Meta, architecture: &str) -> Self {
        Keys { meta, prefix: format!("{architecture}."), read: BTreeSet::new() }
    }

    /// A key in full, from now on counted as understood.
    fn full(&mut self, key: &str) -> String {
        let full = format!("{}{key}", self.prefix);
        self.read.insert(full.clone());
        full
    }

    /// An optional integer.
    pub fn opt_u32(&mut self, key: &str) -> Result<Option<u32>> {
        let full = self.full(key);
        self.meta.opt_u32(&full)
    }

    /// A required count within a range that a real model could have.
    pub fn count(&mut self, key: &str, range: RangeInclusive<u32>) -> Result<usize> {
        let full = self.full(key);
        let value = self.meta.u32(&full)?;
        self.within(key, value, &range)
    }

    /// An optional count within a range.
    pub fn opt_count(&mut self, key: &str, range: RangeInclusive<u32>) -> Result<Option<usize>> {
        let value = self.opt_u32(key)?;
        value.map(|value| self.within(key, value, &range)).transpose()
    }

    /// A count for each layer, written as one number or as an array of `n`.
    pub fn counts(
        &mut self,
        key: &str,
        n: usize,
        range: RangeInclusive<u32>,
    ) -> Result<Option<Vec<usize>>> {
        let full = self.full(key);
        let Some(values) = self.meta.u32_per_layer(&full, n)? else { return Ok(None) };
        values
            .into_iter()
            .map(|value| self.within(key, value, &range))
            .collect::<Result<_>>()
            .map(Some)
    }

    /// A count for each layer that must be there.
    pub fn required_counts(
        &mut self,
        key: &str,
        n: usize,
        range: RangeInclusive<u32>,
    ) -> Result<Vec<usize>> {
        match self.counts(key, n, range)? {
            Some(values) => Ok(values),
            None => Err(self.refuse(key, "is missing")),
        }
    }

    /// A required finite number.
    pub fn f32(&mut self, key: &str) -> Result<f32> {
        let full = self.full(key);
        self.meta.f32(&full)
    }

    /// An optional finite number.
    pub fn opt_f32(&mut self, key: &str) -> Result<Option<f32>> {
        let full = self.full(key);
        self.meta.opt_f32(&full)
    }

    /// An optional text.
    pub fn opt_str(&mut self, key: &str) -> Result<Option<&'a str>> {
        let full = self.full(key);
        self.meta.opt_str(&full)
    }

    /// An optional truth value.
    pub fn opt_bool(&mut self, key: &str) -> Result<Option<bool>> {
        let full = self.full(key);
        self.meta.opt_bool(&full)
    }

    /// Keys that say nothing about the mathematics.
    pub fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.full(key);
        }
    }

    /// An error about the value of a key.
    pub fn refuse(&self, key: &str, what: impl std::fmt::Display) -> Error {
        Error::at(Code::ModelInvalid, self.meta.path(), format!("key '{}{key}'", self.prefix), what)
    }

    /// The model is sound, but asks for what is not built.
    pub fn unsupported(&self, key: &str, feature: &str) -> Error {
        let text =
            format!("{}: key '{}{key}': {feature} is not supported", self.meta.path(), self.prefix);
        Error::new(Code::Unsupported, text).with("feature", feature)
    }

    /// Refuses a key of the name space that was not read.
    pub fn finish(&self) -> Result<()> {
        for (key, _) in self.meta.iter() {
            if key.starts_with(&self.prefix) && !self.read.contains(key) {
                let what =
                    "is an unknown key of this architecture: it may change what the model computes";
                let at = format!("key '{key}'");
                return Err(Error::at(Code::ModelInvalid, self.meta.path(), at, what));
            }
        }
        Ok(())
    }

    fn within(&self, key: &str, value: u32, range: &RangeInclusive<u32>) -> Result<usize> {
        if range.contains(&value) {
            return Ok(value as usize);
        }
        let what = format!("is {value}, expected {} to {}", range.start(), range.end());
        Err(self.refuse(key, what))
    }
}

/// Refuses numbers of an architecture's name space that are not finite, whoever reads them.
pub fn check_finite(meta: &Meta, architecture: &str) -> Result<()> {
    let prefix = format!("{architecture}.");
    for (key, value) in meta.iter().filter(|(key, _)| key.starts_with(&prefix)) {
        let finite = match value {
            Value::F32(number) => number.is_finite(),
            Value::F64(number) => number.is_finite(),
            Value::Array(Array::F32(list)) => list.iter().all(|number| number.is_finite()),
            Value::Array(Array::F64(list)) => list.iter().all(|number| number.is_finite()),
            _ => true,
        };
        if !finite {
            let at = format!("key '{key}'");
            return Err(Error::at(Code::ModelInvalid, meta.path(), at, "is not a finite number"));
        }
    }
    Ok(())
}
