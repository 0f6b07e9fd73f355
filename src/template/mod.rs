//! Chat templates: jinja2 as Python's transformers runs it, from files that nobody vouches for.
//! Knows no tokenizer and no model.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

// The engine is minijinja, which bounds instructions but not bytes, and which has no hook for
// operators. So a template is rewritten before it is compiled (`source`, `expression`, `rewrite`):
// every operator, subscript, container, loop and text becomes a call or a print of ours. Then one
// meter (`limits`) is asked for each byte before it is built, values know their depth and size
// (`values`), and the operators have Python's meaning (`operators`, `python`).
// Weighed against this: measuring values only where they are stored (one expression can still
// build gigabytes), an allocator that counts (it cannot fail without ending the process), and a
// patched copy of minijinja.
mod context;
mod expression;
mod filters;
mod limits;
mod methods;
mod operators;
mod python;
mod reader;
mod render;
mod rewrite;
mod source;
mod values;

use std::collections::BTreeSet;

use minijinja::Environment;
use serde_json::{Map, Value};

pub use self::context::{Input, context};
use self::source::Refusal;
use crate::error::{Code, Error, Field, Result, shown};

/// A broken-down local time, for `strftime_now`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Year of the common era.
    pub year: i32,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 60.
    pub second: u32,
    /// 0 is Sunday.
    pub weekday: u32,
    /// 1 to 366.
    pub day_of_year: u32,
}

/// Longest reason that an error carries; its message shows less.
const REASON_CHARS_MAX: usize = 2000;

/// A compiled chat template.
#[derive(Clone, Debug)]
pub struct Template {
    env: Environment<'static>,
    /// Lines and names of what the template takes attributes of: minijinja says only that
    /// something on a line is undefined.
    bases: Vec<(u32, String)>,
}

impl Template {
    /// Compiles a template; fails with `ERR_TEMPLATE` and the line.
    pub fn compile(source: &str) -> Result<Template> {
        let (env, bases) = render::compile(source).map_err(error)?;
        Ok(Template { env, bases })
    }

    /// Renders the template. Fails with `ERR_TEMPLATE`: the line where it failed and why. The
    /// reason is the template's own text where it calls `raise_exception`.
    pub fn render(&self, context: &Map<String, Value>, now: Clock) -> Result<String> {
        render::render(&self.env, context, now).map_err(|mut refusal| {
            if refusal.reason == render::UNDEFINED {
                self.name_undefined(&mut refusal);
            }
            error(refusal)
        })
    }

    /// Names what may have been undefined, if it is one or two things.
    fn name_undefined(&self, refusal: &mut Refusal) {
        let on_line = self.bases.iter().filter(|(line, _)| *line == refusal.line);
        let names: BTreeSet<&str> = on_line.map(|(_, name)| name.as_str()).collect();
        let names: Vec<&str> = names.into_iter().collect();
        match names.as_slice() {
            [name] => refusal.reason = format!("'{name}' is undefined"),
            [one, other] => refusal.reason = format!("'{one}' or '{other}' is undefined"),
            _ => {}
        }
    }
}

fn error(mut refusal: Refusal) -> Error {
    let reason = shown(&refusal.reason);
    if let Some((end, _)) = refusal.reason.char_indices().nth(REASON_CHARS_MAX) {
        refusal.reason.truncate(end);
        refusal.reason.push('…');
    }
    if refusal.line == 0 {
        let error = Error::new(Code::Template, format!("template: {reason}"));
        return error.with("line", Field::Null).with("reason", refusal.reason);
    }
    let text = format!("template line {}: {reason}", refusal.line);
    let line = u64::from(refusal.line);
    Error::new(Code::Template, text).with("line", line).with("reason", refusal.reason)
}
