//! Conversations to tokens: template, then tokenizer. What a message says is data: text in it that
//! spells a control token does not become one, although the same text in the template does.

use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value};

use crate::error::{Code, Error, Field, Result};
pub use crate::template::Clock;
use crate::template::{self, Template};
use crate::tokenizer::Tokenizer;

/// Characters that Unicode keeps out of text for such use: U+FDD0..=U+FDEF.
const MARKS: std::ops::RangeInclusive<char> = '\u{fdd0}'..='\u{fdef}';

/// A tokenizer with the chat template that goes with it.
pub struct Chat {
    tokenizer: Arc<Tokenizer>,
    source: Result<Option<String>>,
    template: OnceLock<Result<Template>>,
}

/// What a model sees of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// As text.
    pub text: String,
    /// As tokens.
    pub tokens: Vec<u32>,
}

impl Chat {
    /// `source`: the template, Jinja, or why it cannot be had. It is compiled at first use.
    #[must_use]
    pub fn new(tokenizer: Arc<Tokenizer>, source: Result<Option<String>>) -> Self {
        Chat { tokenizer, source, template: OnceLock::new() }
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The template's source.
    #[must_use]
    pub fn source(&self) -> Option<&str> {
        self.source.as_ref().ok().and_then(Option::as_deref)
    }

    /// Compiles the template. Errors: `ERR_TEMPLATE`, also if there is none.
    pub fn template(&self) -> Result<&Template> {
        let compile = || match &self.source {
            Ok(Some(source)) => Template::compile(source),
            Ok(None) => Err(no_template()),
            Err(error) => Err(error.clone()),
        };
        self.template.get_or_init(compile).as_ref().map_err(Clone::clone)
    }

    /// Renders messages (a JSON array of objects) with further variables (a JSON object).
    /// Errors: `ERR_TEMPLATE`.
    pub fn render(&self, messages: &str, extra: &str, now: Clock) -> Result<Rendered> {
        let template = self.template()?;
        let mut messages = list(messages)?;
        let extra = object(extra)?;
        self.rename_developers(&mut messages);
        let mark = self.mark(&mut messages, &extra);
        let context = template::context(template::Input {
            messages,
            add_generation_prompt: true,
            bos_token: self.text_of(self.tokenizer.bos()),
            eos_token: self.text_of(self.tokenizer.eos()),
            extra,
            ..template::Input::default()
        })?;
        let text = template.render(&context, now)?;
        let Some(mark) = mark else {
            let tokens = self.tokenizer.encode(&text, false, true);
            return Ok(Rendered { text, tokens });
        };
        let tokens = self.tokenizer.encode_marked(&text, mark);
        Ok(Rendered { text: text.replace(mark, ""), tokens })
    }

    /// Breaks what spells a control token in any string of the messages with a character that
    /// occurs nowhere else; `None` if nothing does, and then nothing has changed.
    fn mark(&self, messages: &mut [Value], extra: &Map<String, Value>) -> Option<char> {
        let mut found = false;
        for message in &mut *messages {
            strings(message, &mut |text| found |= self.tokenizer.has_control(text));
        }
        if !found {
            return None;
        }
        let mut used = String::new();
        let mut collect = |text: &mut String| used.extend(text.chars().filter(is_mark));
        messages.iter_mut().for_each(|message| strings(message, &mut collect));
        extra.clone().values_mut().for_each(|value| strings(value, &mut collect));
        used.extend(self.source().into_iter().flat_map(|source| source.chars().filter(is_mark)));
        // Somebody who uses all 32 loses one of them.
        let mark = MARKS.clone().find(|mark| !used.contains(*mark)).unwrap_or('\u{fdd0}');
        for message in messages {
            strings(message, &mut |text| {
                text.retain(|c| c != mark);
                *text = self.tokenizer.break_control(text, mark);
            });
        }
        Some(mark)
    }

    /// Few templates know OpenAI's newer name for a system message.
    fn rename_developers(&self, messages: &mut [Value]) {
        if self.source().is_some_and(|source| source.contains("developer")) {
            return;
        }
        for role in messages.iter_mut().filter_map(|message| message.get_mut("role")) {
            if role == "developer" {
                *role = Value::from("system");
            }
        }
    }

    fn text_of(&self, token: Option<u32>) -> Option<String> {
        let piece = self.tokenizer.piece(token?, true);
        Some(String::from_utf8_lossy(piece).into_owned())
    }
}

fn is_mark(c: &char) -> bool {
    MARKS.contains(c)
}

/// Visits every string, names of properties aside.
fn strings(value: &mut Value, visit: &mut dyn FnMut(&mut String)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(list) => list.iter_mut().for_each(|item| strings(item, visit)),
        Value::Object(map) => map.values_mut().for_each(|item| strings(item, visit)),
        _ => {}
    }
}

fn list(json: &str) -> Result<Vec<Value>> {
    serde_json::from_str(json).map_err(|error| not_json("messages", &error))
}

fn object(json: &str) -> Result<Map<String, Value>> {
    serde_json::from_str(json).map_err(|error| not_json("templateArgs", &error))
}

/// It came from a JSON writer: all that can be wrong is its depth.
fn not_json(name: &'static str, error: &serde_json::Error) -> Error {
    Error::invalid_arg(name, "JSON nested at most 127 deep", &error.to_string())
}

fn no_template() -> Error {
    let reason = "the model has no chat template; give one as the option chatTemplate";
    let error = Error::new(Code::Template, reason);
    error.with("line", Field::Null).with("reason", reason)
}
