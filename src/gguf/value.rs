//! Metadata values: thirteen types, arrays in compact typed lists. Knows how to read one from a
//! cursor; what a key means is the model's and the tokenizer's business.

use std::io::Read;

use super::cursor::{Cursor, Fault, push};

/// Arrays may lie that deep in each other.
const DEPTH_MAX: usize = 8;

/// So many arrays may lie in other arrays of one value: each takes memory beyond its 12 bytes.
const NESTED_MAX: usize = 1 << 17;

/// A metadata value. Text is bytes: only keys are known to be UTF-8.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names say it all")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(Vec<u8>),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// The elements of an array value, all of one type.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names say it all")]
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    Strings(Strings),
    Arrays(Vec<Array>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// Many strings in one blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Strings {
    blob: Vec<u8>,
    /// Where each string ends in the blob, which is shorter than a header may be.
    ends: Vec<u32>,
}

impl Strings {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The string at `index`; empty beyond the last.
    #[must_use]
    pub fn get(&self, index: usize) -> &[u8] {
        let before = index.checked_sub(1).and_then(|before| self.ends.get(before));
        let start = before.copied().unwrap_or(0) as usize;
        let end = self.ends.get(index).copied().unwrap_or(0) as usize;
        self.blob.get(start..end).unwrap_or(&[])
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        (0..self.len()).map(|index| self.get(index))
    }

    /// Bytes that the list holds in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.blob.capacity().saturating_add(self.ends.capacity().saturating_mul(4))
    }

    fn read<R: Read>(cursor: &mut Cursor<R>, count: u64) -> Result<Self, Fault> {
        let mut strings = Strings::default();
        for _ in 0..count {
            cursor.string_into(&mut strings.blob, "a string", u64::MAX)?;
            let end = u32::try_from(strings.blob.len())
                .map_err(|_| cursor.corrupt("strings of more than 4 GiB"))?;
            push(&mut strings.ends, end)?;
        }
        strings.blob.shrink_to_fit();
        strings.ends.shrink_to_fit();
        Ok(strings)
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for Strings {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut strings = Strings::default();
        for item in items {
            strings.blob.extend_from_slice(item.as_ref());
            strings.ends.push(u32::try_from(strings.blob.len()).unwrap_or(u32::MAX));
        }
        strings
    }
}

impl Array {
    /// How many elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Array::U8(list) => list.len(),
            Array::I8(list) => list.len(),
            Array::U16(list) => list.len(),
            Array::I16(list) => list.len(),
            Array::U32(list) => list.len(),
            Array::I32(list) => list.len(),
            Array::F32(list) => list.len(),
            Array::Bool(list) => list.len(),
            Array::Strings(list) => list.len(),
            Array::Arrays(list) => list.len(),
            Array::U64(list) => list.len(),
            Array::I64(list) => list.len(),
            Array::F64(list) => list.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name of the elements' type.
    #[must_use]
    pub fn element_kind(&self) -> &'static str {
        match self {
            Array::U8(_) => "u8",
            Array::I8(_) => "i8",
            Array::U16(_) => "u16",
            Array::I16(_) => "i16",
            Array::U32(_) => "u32",
            Array::I32(_) => "i32",
            Array::F32(_) => "f32",
            Array::Bool(_) => "bool",
            Array::Strings(_) => "string",
            Array::Arrays(_) => "array",
            Array::U64(_) => "u64",
            Array::I64(_) => "i64",
            Array::F64(_) => "f64",
        }
    }

    /// Reads an array; nesting is walked with a list of what is open, not with the stack.
    fn read<R: Read>(cursor: &mut Cursor<R>) -> Result<Self, Fault> {
        let mut open: Vec<(Vec<Array>, u64)> = Vec::new();
        let mut nested: usize = 0;
        loop {
            if open.len() >= DEPTH_MAX {
                return Err(cursor.corrupt(format!("arrays nested deeper than {DEPTH_MAX}")));
            }
            let kind = cursor.u32()?;
            let count = cursor.u64()?;
            let mut done = match (kind, count) {
                (ARRAY, 0) => Array::Arrays(Vec::new()),
                (ARRAY, count) => {
                    enough(cursor, count, 12)?;
                    open.push((Vec::new(), count));
                    continue;
                }
                (kind, count) => Array::flat(cursor, kind, count)?,
            };
            loop {
                let Some((list, left)) = open.last_mut() else { return Ok(done) };
                nested = nested.saturating_add(1);
                if nested > NESTED_MAX {
                    return Err(cursor.corrupt(format!("more than {NESTED_MAX} nested arrays")));
                }
                push(list, done)?;
                *left = left.saturating_sub(1);
                if *left > 0 {
                    break;
                }
                done = Array::Arrays(open.pop().map(|(list, _)| list).unwrap_or_default());
            }
        }
    }

    fn flat<R: Read>(cursor: &mut Cursor<R>, kind: u32, count: u64) -> Result<Self, Fault> {
        enough(cursor, count, if kind == STRING { 8 } else { 1 })?;
        Ok(match kind {
            0 => Array::U8(cursor.numbers(count, u8::from_le_bytes)?),
            1 => Array::I8(cursor.numbers(count, i8::from_le_bytes)?),
            2 => Array::U16(cursor.numbers(count, u16::from_le_bytes)?),
            3 => Array::I16(cursor.numbers(count, i16::from_le_bytes)?),
            4 => Array::U32(cursor.numbers(count, u32::from_le_bytes)?),
            5 => Array::I32(cursor.numbers(count, i32::from_le_bytes)?),
            6 => Array::F32(cursor.numbers(count, f32::from_le_bytes)?),
            7 => {
                let bytes = cursor.numbers(count, u8::from_le_bytes)?;
                if let Some(byte) = bytes.iter().find(|byte| **byte > 1) {
                    return Err(cursor.corrupt(format!("a bool is {byte}, not 0 or 1")));
                }
                Array::Bool(bytes.iter().map(|byte| *byte == 1).collect())
            }
            STRING => Array::Strings(Strings::read(cursor, count)?),
            10 => Array::U64(cursor.numbers(count, u64::from_le_bytes)?),
            11 => Array::I64(cursor.numbers(count, i64::from_le_bytes)?),
            12 => Array::F64(cursor.numbers(count, f64::from_le_bytes)?),
            kind => return Err(cursor.corrupt(format!("array elements of unknown type {kind}"))),
        })
    }
}

const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// Checks that `count` elements of at least `bytes` each may lie in what is left.
fn enough<R: Read>(cursor: &Cursor<R>, count: u64, bytes: u64) -> Result<(), Fault> {
    let left = cursor.left();
    if count.checked_mul(bytes).is_some_and(|bytes| bytes <= left) {
        return Ok(());
    }
    Err(cursor.corrupt(format!("an array of {count} elements; the file has {left} bytes more")))
}

impl Value {
    /// Reads a value of the type with this number.
    pub(super) fn read<R: Read>(cursor: &mut Cursor<R>, kind: u32) -> Result<Self, Fault> {
        Ok(match kind {
            0 => Value::U8(u8::from_le_bytes(cursor.take()?)),
            1 => Value::I8(i8::from_le_bytes(cursor.take()?)),
            2 => Value::U16(u16::from_le_bytes(cursor.take()?)),
            3 => Value::I16(i16::from_le_bytes(cursor.take()?)),
            4 => Value::U32(u32::from_le_bytes(cursor.take()?)),
            5 => Value::I32(i32::from_le_bytes(cursor.take()?)),
            6 => Value::F32(f32::from_le_bytes(cursor.take()?)),
            7 => match cursor.take()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [byte] => return Err(cursor.corrupt(format!("a bool is {byte}, not 0 or 1"))),
            },
            STRING => Value::String(cursor.string("a string", u64::MAX)?),
            ARRAY => Value::Array(Array::read(cursor)?),
            10 => Value::U64(u64::from_le_bytes(cursor.take()?)),
            11 => Value::I64(i64::from_le_bytes(cursor.take()?)),
            12 => Value::F64(f64::from_le_bytes(cursor.take()?)),
            kind => return Err(cursor.corrupt(format!("unknown value type {kind}"))),
        })
    }

    /// The type's name, for messages: `u32`, `array of string`.
    #[must_use]
    pub fn kind(&self) -> String {
        match self {
            Value::U8(_) => "u8",
            Value::I8(_) => "i8",
            Value::U16(_) => "u16",
            Value::I16(_) => "i16",
            Value::U32(_) => "u32",
            Value::I32(_) => "i32",
            Value::F32(_) => "f32",
            Value::Bool(_) => "bool",
            Value::String(_) => "string",
            Value::Array(array) => return format!("array of {}", array.element_kind()),
            Value::U64(_) => "u64",
            Value::I64(_) => "i64",
            Value::F64(_) => "f64",
        }
        .to_owned()
    }

    /// An integer of whatever width.
    #[must_use]
    pub fn integer(&self) -> Option<i128> {
        Some(match self {
            Value::U8(number) => (*number).into(),
            Value::I8(number) => (*number).into(),
            Value::U16(number) => (*number).into(),
            Value::I16(number) => (*number).into(),
            Value::U32(number) => (*number).into(),
            Value::I32(number) => (*number).into(),
            Value::U64(number) => (*number).into(),
            Value::I64(number) => (*number).into(),
            _ => return None,
        })
    }

    /// A float of either width.
    #[must_use]
    pub fn float(&self) -> Option<f64> {
        match self {
            Value::F32(number) => Some((*number).into()),
            Value::F64(number) => Some(*number),
            _ => None,
        }
    }
}

macro_rules! from {
    ($($from:ty => $variant:expr;)*) => {
        $(impl From<$from> for Value {
            fn from(value: $from) -> Self {
                $variant(value)
            }
        })*
    };
}

from! {
    u32 => Value::U32;
    i32 => Value::I32;
    u64 => Value::U64;
    f32 => Value::F32;
    bool => Value::Bool;
    Array => Value::Array;
    Vec<u32> => |list| Value::Array(Array::U32(list));
    Vec<i32> => |list| Value::Array(Array::I32(list));
    Vec<f32> => |list| Value::Array(Array::F32(list));
    Vec<bool> => |list| Value::Array(Array::Bool(list));
    Strings => |list| Value::Array(Array::Strings(list));
    &str => |text: &str| Value::String(text.as_bytes().to_vec());
}
