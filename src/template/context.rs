//! Builds the variables that a chat template sees, as transformers does before it renders.

use serde_json::{Map, Value};

use crate::error::{Code, Error, Result};

/// What a caller knows when it renders a chat.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// The messages: objects with at least `role`.
    pub messages: Vec<Value>,
    /// Descriptions of the tools, as JSON Schema functions.
    pub tools: Option<Vec<Value>>,
    /// Documents for retrieval, rarely used.
    pub documents: Option<Vec<Value>>,
    /// Whether the text ends with the opening of an answer.
    pub add_generation_prompt: bool,
    /// Text of the token that begins a sequence.
    pub bos_token: Option<String>,
    /// Text of the token that ends a sequence.
    pub eos_token: Option<String>,
    /// Further variables, such as `enable_thinking`; they win over those above.
    pub extra: Map<String, Value>,
}

/// The variables of a template. Fails without messages and on a message that is no object.
pub fn context(input: Input) -> Result<Map<String, Value>> {
    if input.messages.is_empty() {
        return Err(Error::new(Code::InvalidArg, "messages: expected one or more, got none"));
    }
    let messages = input.messages.into_iter().enumerate().map(|(index, message)| match message {
        Value::Object(message) => Ok(Value::Object(prepare(message))),
        other => {
            let got = match other {
                Value::Null => "null",
                Value::Array(_) => "an array",
                Value::String(_) => "a string",
                _ => "a number or boolean",
            };
            let text = format!("messages[{index}]: expected an object, got {got}");
            Err(Error::new(Code::InvalidArg, text))
        }
    });
    let mut vars = Map::new();
    vars.insert("messages".to_owned(), Value::Array(messages.collect::<Result<_>>()?));
    vars.insert("tools".to_owned(), input.tools.map_or(Value::Null, Value::Array));
    vars.insert("documents".to_owned(), input.documents.map_or(Value::Null, Value::Array));
    vars.insert("add_generation_prompt".to_owned(), Value::Bool(input.add_generation_prompt));
    for (name, text) in [("bos_token", input.bos_token), ("eos_token", input.eos_token)] {
        if let Some(text) = text {
            vars.insert(name.to_owned(), Value::String(text));
        }
    }
    for (name, value) in input.extra {
        vars.insert(name, value);
    }
    Ok(vars)
}

/// Drops keys without a value, and gives a message's thoughts, under whichever of their three names
/// they came, as `thinking` (the first key) and `reasoning_content` (in its place, or the last):
/// transformers does so, and templates that dump a message show the order.
fn prepare(mut message: Map<String, Value>) -> Map<String, Value> {
    message.retain(|_, value| !value.is_null());
    let names = ["reasoning_content", "thinking", "reasoning"];
    let Some(thoughts) = names.iter().find_map(|name| message.get(*name)).cloned() else {
        return message;
    };
    let mut prepared = Map::new();
    prepared.insert("thinking".to_owned(), thoughts.clone());
    prepared.extend(message);
    prepared.entry("reasoning_content").or_insert(thoughts);
    prepared
}
