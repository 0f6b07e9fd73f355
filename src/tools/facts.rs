//! What files, models and tokenizers are, as the JSON that the public surface shows. Reads what the
//! parts know; decides nothing.

use serde_json::{Map, Value as Json, json};

use crate::gguf::{Array, File, Meta, Value};
use crate::model;
use crate::tokenizer::Tokenizer;

/// Elements of an array that are handed over in one piece.
const PIECE: usize = 8192;
/// Integers beyond this are written as strings: a double cannot hold them.
const SAFE: i128 = (1 << 53) - 1;

/// Metadata in the file's order: `[key, kind, JSON ...]` each. Kind `v`: one value; `a`: an array,
/// its pieces one after the other; with `n`: numbers that JSON cannot hold are written as strings.
#[must_use]
pub fn metadata(meta: &Meta) -> Vec<Vec<String>> {
    meta.iter().map(|(key, value)| entry(key, value)).collect()
}

/// About the memory that metadata takes.
#[must_use]
pub fn metadata_bytes(meta: &Meta) -> usize {
    let bytes = |value: &Value| match value {
        Value::Array(Array::Strings(list)) => list.bytes(),
        Value::Array(array) => array.len().saturating_mul(8),
        Value::String(text) => text.len(),
        _ => 0,
    };
    meta.iter().map(|(key, value)| key.len() + size_of::<Value>() + bytes(value)).sum()
}

/// `GgufInfo` without the metadata.
#[must_use]
pub fn file(file: &File) -> String {
    let files: Vec<_> = file.parts().iter().map(|part| part.path.to_string_lossy()).collect();
    let tensors: Vec<Json> = file
        .tensors()
        .iter()
        .map(|tensor| {
            json!({
                "name": tensor.name, "type": tensor.kind.name(), "shape": tensor.shape,
                "file": tensor.part, "offset": tensor.offset, "bytes": tensor.bytes,
            })
        })
        .collect();
    let reasons = reasons(file);
    json!({
        "files": files, "version": file.version(), "fileBytes": file.bytes(),
        "supported": reasons.is_empty(), "reasons": reasons, "tensors": tensors,
    })
    .to_string()
}

/// `TokenizerInfo`.
#[must_use]
pub fn tokenizer(path: &str, tokenizer: &Tokenizer, template: Option<&str>) -> String {
    json!({
        "path": path, "kind": tokenizer.kind(), "pre": tokenizer.pre(),
        "vocabSize": tokenizer.n_vocab(), "bos": tokenizer.bos(), "eos": tokenizer.eos(),
        "eog": tokenizer.eog(), "chatTemplate": template,
    })
    .to_string()
}

/// Why `loadModel` would refuse it.
fn reasons(file: &File) -> Vec<String> {
    let plan = model::plan(file).err();
    let tokenizer = Tokenizer::from_meta(file.meta()).err();
    plan.into_iter().chain(tokenizer).map(|error| error.message).collect()
}

/// What stands for our sampling defaults; what is out of range is left out.
#[must_use]
pub fn sampling(meta: &Meta) -> Map<String, Json> {
    const KEYS: [(&str, &str, f64, f64); 6] = [
        ("temp", "temperature", 0.0, f64::MAX),
        ("top_k", "topK", 0.0, i32::MAX as f64),
        ("top_p", "topP", 0.0, 1.0),
        ("min_p", "minP", 0.0, 1.0),
        ("penalty_last_n", "repeatLastTokens", 0.0, i32::MAX as f64),
        ("penalty_repeat", "repeatPenalty", f64::MIN_POSITIVE, f64::MAX),
    ];
    let mut found = Map::new();
    for (key, name, least, most) in KEYS {
        let value = meta.get(&format!("general.sampling.{key}"));
        #[allow(clippy::cast_precision_loss, reason = "larger ones are out of range")]
        let number = value.and_then(|value| {
            value.float().or_else(|| value.integer().map(|integer| integer as f64))
        });
        let Some(number) = number.filter(|number| (least..=most).contains(number)) else {
            continue;
        };
        let is_count = matches!(name, "topK" | "repeatLastTokens");
        found.insert(name.to_owned(), json!(if is_count { number.trunc() } else { number }));
    }
    found
}

/// The tensor type that most weights have.
#[must_use]
pub fn commonest_type(file: &File) -> &'static str {
    let mut counts: Vec<(&'static str, u64)> = Vec::new();
    for tensor in file.tensors() {
        let (name, count) = (tensor.kind.name(), elements(&tensor.shape));
        match counts.iter_mut().find(|entry| entry.0 == name) {
            Some(entry) => entry.1 = entry.1.saturating_add(count),
            None => counts.push((name, count)),
        }
    }
    counts.into_iter().max_by_key(|entry| entry.1).map_or("F32", |entry| entry.0)
}

/// Numbers in a tensor of this shape.
#[must_use]
pub fn elements(shape: &[usize]) -> u64 {
    shape.iter().fold(1, |product, n| product.saturating_mul(*n as u64))
}

fn entry(key: &str, value: &Value) -> Vec<String> {
    let mut odd = false;
    let mut out = vec![key.to_owned(), String::new()];
    match value {
        Value::Array(array) if array.len() > PIECE => {
            let mut elements = elements_of(array, &mut odd);
            while !elements.is_empty() {
                let rest = elements.split_off(elements.len().min(PIECE));
                out.push(Json::Array(elements).to_string());
                elements = rest;
            }
            out[1].push('a');
        }
        value => {
            out.push(json_of(value, &mut odd).to_string());
            out[1].push('v');
        }
    }
    if odd {
        out[1].push('n');
    }
    out
}

fn json_of(value: &Value, odd: &mut bool) -> Json {
    match value {
        Value::Bool(flag) => Json::Bool(*flag),
        Value::String(bytes) => text(bytes),
        Value::Array(array) => Json::Array(elements_of(array, odd)),
        value => match (value.integer(), value.float()) {
            (Some(integer), _) => number(integer, odd),
            (None, float) => real(float.unwrap_or(f64::NAN), odd),
        },
    }
}

fn elements_of(array: &Array, odd: &mut bool) -> Vec<Json> {
    match array {
        Array::U8(list) => list.iter().map(|n| json!(n)).collect(),
        Array::I8(list) => list.iter().map(|n| json!(n)).collect(),
        Array::U16(list) => list.iter().map(|n| json!(n)).collect(),
        Array::I16(list) => list.iter().map(|n| json!(n)).collect(),
        Array::U32(list) => list.iter().map(|n| json!(n)).collect(),
        Array::I32(list) => list.iter().map(|n| json!(n)).collect(),
        Array::Bool(list) => list.iter().map(|flag| json!(flag)).collect(),
        Array::U64(list) => list.iter().map(|n| number((*n).into(), odd)).collect(),
        Array::I64(list) => list.iter().map(|n| number((*n).into(), odd)).collect(),
        Array::F32(list) => list.iter().map(|n| real((*n).into(), odd)).collect(),
        Array::F64(list) => list.iter().map(|n| real(*n, odd)).collect(),
        Array::Strings(list) => list.iter().map(text).collect(),
        Array::Arrays(list) => {
            list.iter().map(|array| Json::Array(elements_of(array, odd))).collect()
        }
    }
}

fn text(bytes: &[u8]) -> Json {
    Json::String(String::from_utf8_lossy(bytes).into_owned())
}

fn number(integer: i128, odd: &mut bool) -> Json {
    if (-SAFE..=SAFE).contains(&integer) {
        return i64::try_from(integer).map_or(Json::Null, Json::from);
    }
    *odd = true;
    Json::String(integer.to_string())
}

fn real(float: f64, odd: &mut bool) -> Json {
    if float.is_finite() {
        return json!(float);
    }
    *odd = true;
    let infinity = if float > 0.0 { "Infinity" } else { "-Infinity" };
    Json::String(if float.is_nan() { "NaN" } else { infinity }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: Value, expected: &[&str]) {
        let entry = entry("k", &value);
        assert_eq!(entry[1..], expected[..], "{value:?}");
    }

    #[test]
    fn values_become_json_that_keeps_them_whole() {
        check(Value::U32(7), &["v", "7"]);
        check(Value::I64(-SAFE as i64), &["v", "-9007199254740991"]);
        check(Value::U64(u64::MAX), &["vn", "\"18446744073709551615\""]);
        check(Value::F32(0.5), &["v", "0.5"]);
        check(Value::F64(f64::NEG_INFINITY), &["vn", "\"-Infinity\""]);
        check(Value::String(b"a\xff\"".to_vec()), &["v", "\"a\u{fffd}\\\"\""]);
        check(Value::Array(Array::Bool(vec![true, false])), &["v", "[true,false]"]);
    }

    #[test]
    fn long_arrays_come_in_pieces() {
        let entry = entry("k", &Value::Array(Array::U8(vec![1; PIECE + 2])));
        assert_eq!(entry[1], "a");
        assert_eq!(entry[3..], ["[1,1]"]);
    }
}
