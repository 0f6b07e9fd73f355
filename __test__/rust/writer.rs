//! Writes GGUF files for tests: whatever it is told, sense or nonsense.

use node_chord::gguf::{Array, Value};

/// A file to be written.
#[derive(Clone, Debug)]
pub struct Gguf {
    pub version: u32,
    pub keys: Vec<(String, Value)>,
    /// Name, dimensions innermost first, type, offset from the data's start.
    pub tensors: Vec<(String, Vec<u64>, u32, u64)>,
    pub alignment: usize,
}

impl Gguf {
    /// A file without tensors.
    pub fn new(keys: Vec<(String, Value)>) -> Self {
        Gguf { version: 3, keys, tensors: Vec::new(), alignment: 32 }
    }

    /// Header, metadata and directory, padded to where the data begins.
    pub fn header(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for (key, value) in &self.keys {
            text(&mut out, key.as_bytes());
            out.extend(kind(value).to_le_bytes());
            put(&mut out, value);
        }
        for (name, dimensions, kind, offset) in &self.tensors {
            text(&mut out, name.as_bytes());
            out.extend((dimensions.len() as u32).to_le_bytes());
            dimensions.iter().for_each(|n| out.extend(n.to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend(offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(self.alignment), 0);
        out
    }
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(bytes);
}

fn kind(value: &Value) -> u32 {
    match value {
        Value::U8(_) => 0,
        Value::I8(_) => 1,
        Value::U16(_) => 2,
        Value::I16(_) => 3,
        Value::U32(_) => 4,
        Value::I32(_) => 5,
        Value::F32(_) => 6,
        Value::Bool(_) => 7,
        Value::String(_) => 8,
        Value::Array(_) => 9,
        Value::U64(_) => 10,
        Value::I64(_) => 11,
        Value::F64(_) => 12,
    }
}

fn put(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(number) => out.extend(number.to_le_bytes()),
        Value::I8(number) => out.extend(number.to_le_bytes()),
        Value::U16(number) => out.extend(number.to_le_bytes()),
        Value::I16(number) => out.extend(number.to_le_bytes()),
        Value::U32(number) => out.extend(number.to_le_bytes()),
        Value::I32(number) => out.extend(number.to_le_bytes()),
        Value::F32(number) => out.extend(number.to_le_bytes()),
        Value::Bool(flag) => out.push(u8::from(*flag)),
        Value::String(bytes) => text(out, bytes),
        Value::Array(array) => put_array(out, array),
        Value::U64(number) => out.extend(number.to_le_bytes()),
        Value::I64(number) => out.extend(number.to_le_bytes()),
        Value::F64(number) => out.extend(number.to_le_bytes()),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    let mut head = |kind: u32| {
        out.extend(kind.to_le_bytes());
        out.extend((array.len() as u64).to_le_bytes());
    };
    macro_rules! numbers {
        ($kind:literal, $list:expr) => {{
            head($kind);
            $list.iter().for_each(|number| out.extend(number.to_le_bytes()));
        }};
    }
    match array {
        Array::U8(list) => numbers!(0, list),
        Array::I8(list) => numbers!(1, list),
        Array::U16(list) => numbers!(2, list),
        Array::I16(list) => numbers!(3, list),
        Array::U32(list) => numbers!(4, list),
        Array::I32(list) => numbers!(5, list),
        Array::F32(list) => numbers!(6, list),
        Array::Bool(list) => {
            head(7);
            out.extend(list.iter().map(|flag| u8::from(*flag)));
        }
        Array::Strings(list) => {
            head(8);
            list.iter().for_each(|bytes| text(out, bytes));
        }
        Array::Arrays(list) => {
            head(9);
            list.iter().for_each(|array| put_array(out, array));
        }
        Array::U64(list) => numbers!(10, list),
        Array::I64(list) => numbers!(11, list),
        Array::F64(list) => numbers!(12, list),
    }
}
