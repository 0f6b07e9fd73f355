//! Runs a rewritten template: on a thread of its own, whose stack is deep enough for the deepest
//! template that passes, whose meter belongs to this rendering alone, and where a panic of the
//! template engine ends as an error. Starting the thread takes about 30 microseconds.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, Value};
use serde_json::{Map as Object, Value as Json};

use super::limits::{self, Limits, OUTPUT_BYTES_MAX, STACK_BYTES, VALUE_DEPTH_MAX, refuse};
use super::source::Refusal;
use super::values::{self, Shape};
use super::{Clock, filters, methods, operators, python, rewrite};

const NAME: &str = "chat";
/// The reason of an error that does not say what is undefined.
pub(super) const UNDEFINED: &str = "an undefined value is used";

/// Compiles a template.
pub(super) fn compile(source: &str) -> Result<(Environment<'static>, Vec<(u32, String)>), Refusal> {
    on_thread(|| {
        let (rewritten, bases) = rewrite::rewrite(source)?;
        let mut env = Environment::empty();
        env.set_syntax(SyntaxConfig::default());
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_formatter(print);
        operators::install(&mut env);
        filters::install(&mut env);
        methods::install(&mut env);
        env.add_template_owned(NAME, rewritten).map_err(|error| refusal(&error))?;
        Ok((env, bases))
    })
}

/// Renders a compiled template.
pub(super) fn render(
    env: &Environment<'static>,
    context: &Object<String, Json>,
    now: Clock,
) -> Result<String, Refusal> {
    on_thread(|| {
        let mut bytes = 0;
        for value in context.values() {
            weigh(value, 0, &mut bytes)?;
        }
        let limits = Limits::new(bytes);
        limits::start(limits, now);
        let rendered = run(env, context, limits);
        rendered.map_err(|error| match limits::raised() {
            Some(reason) => Refusal::new(line(&error), reason),
            None => refusal(&error),
        })
    })
}

fn run(
    env: &Environment<'static>,
    context: &Object<String, Json>,
    limits: Limits,
) -> Result<String, Error> {
    let mut env = env.clone();
    env.set_fuel(Some(limits.fuel));
    let mut root = Vec::new();
    for (key, value) in context {
        root.push((Value::from(key.as_str()), convert(value)?));
    }
    let root = Value::from_pairs(root);
    let mut output = Bounded(Vec::new());
    let template = env.get_template(NAME)?;
    template.render_captured_to(root, &mut output)?;
    String::from_utf8(output.0).map_err(|_| refuse("the output is not UTF-8"))
}

/// What is printed goes through here: texts of the template, values, macros, captures.
fn print(out: &mut Output, _: &mut State, value: &Value) -> Result<(), Error> {
    let write = |out: &mut Output, text: &str| {
        limits::print(text.len())?;
        let too_long = format!("the output exceeds {OUTPUT_BYTES_MAX} bytes");
        out.write_str(text).map_err(|_| refuse(too_long))
    };
    match value.as_str() {
        Some(text) => write(out, text),
        None if value.is_undefined() => Ok(()),
        None => {
            let mut writer = python::Writer::new();
            writer.text_of(value)?;
            write(out, &writer.finish()?)
        }
    }
}

/// Collects the output up to its bound.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len().saturating_add(bytes.len()) > OUTPUT_BYTES_MAX {
            return Err(io::Error::other("too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Adds the bytes of a value; refuses one that is nested too deep.
fn weigh(value: &Json, level: u32, bytes: &mut usize) -> Result<(), Refusal> {
    if level >= VALUE_DEPTH_MAX {
        let reason = format!("the context is nested more than {VALUE_DEPTH_MAX} deep");
        return Err(Refusal::new(0, reason));
    }
    let below = level.saturating_add(1);
    *bytes = bytes.saturating_add(16);
    match value {
        Json::String(text) => *bytes = bytes.saturating_add(text.len()),
        Json::Array(items) => {
            for item in items {
                weigh(item, below, bytes)?;
            }
        }
        Json::Object(object) => {
            for (key, item) in object {
                *bytes = bytes.saturating_add(key.len()).saturating_add(64);
                weigh(item, below, bytes)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// A value of the context for the template; its depth was checked.
fn convert(value: &Json) -> Result<Value, Error> {
    Ok(match value {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(value), _, _) => Value::from(value),
            (_, Some(value), _) => Value::from(value),
            (_, _, value) => Value::from(value.unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => {
            let items = items.iter().map(convert).collect::<Result<Vec<_>, _>>()?;
            values::list(items, Shape::List)?
        }
        Json::Object(object) => {
            let pairs =
                object.iter().map(|(key, value)| Ok((Value::from(key.as_str()), convert(value)?)));
            values::map(pairs.collect::<Result<Vec<_>, Error>>()?)?
        }
    })
}

/// Line of an error, 0 if it has none.
fn line(error: &Error) -> u32 {
    error.line().and_then(|line| u32::try_from(line).ok()).unwrap_or(0)
}

fn refusal(error: &Error) -> Refusal {
    let detail = error.detail().unwrap_or("");
    let reason = match error.kind() {
        ErrorKind::OutOfFuel => "the template runs too long".to_owned(),
        ErrorKind::InvalidOperation | ErrorKind::UndefinedError if !detail.is_empty() => {
            detail.to_owned()
        }
        ErrorKind::WriteFailure => format!("the output exceeds {OUTPUT_BYTES_MAX} bytes"),
        ErrorKind::UndefinedError => UNDEFINED.to_owned(),
        kind if detail.is_empty() => kind.to_string(),
        kind => format!("{kind}: {detail}"),
    };
    // An error inside a filter or a macro carries its cause as a source.
    Refusal::new(line(error), reason)
}

/// Runs `act` on a thread with a deep stack; a panic there becomes a refusal.
fn on_thread<T: Send>(act: impl FnOnce() -> Result<T, Refusal> + Send) -> Result<T, Refusal> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("template".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || {
                catch_unwind(AssertUnwindSafe(act))
                    .unwrap_or_else(|_| Err(Refusal::new(0, "the template engine failed")))
            });
        match thread {
            Ok(thread) => {
                thread.join().unwrap_or_else(|_| Err(Refusal::new(0, "the template engine failed")))
            }
            Err(error) => Err(Refusal::new(0, format!("no thread for the template: {error}"))),
        }
    })
}
