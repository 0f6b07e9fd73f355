//! Methods of strings, lists and maps, and the functions of a chat template. Methods are
//! minijinja's behind a check of what they may build; those that can multiply a text are ours.

use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};
use minijinja_contrib::pycompat;

use super::filters::{elements, joined, kept, replace, text_of};
use super::limits::{self, refuse};
use super::operators::defined;
use super::python;
use super::values::{self, Namespace, Shape};

/// Adds methods and functions to an environment.
pub(super) fn install(env: &mut Environment<'static>) {
    env.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
        let text = text_of(message)?;
        limits::raise(text.clone());
        Err(refuse(text))
    });
    env.add_function("strftime_now", |format: &str| -> Result<Value, Error> {
        limits::room(format.len().saturating_mul(8))?;
        kept(python::strftime(&limits::clock()?, format))
    });
    env.add_function("namespace", namespace);
    env.add_function("dict", dict);
    env.add_function("range", range);
    env.set_unknown_method_callback(method);
}

/// The operator `%` of a string.
pub(super) fn percent(text: &Value, args: &Value) -> Result<Value, Error> {
    let text = text.as_str().unwrap_or("");
    if matches!(python::type_name(args), "tuple") {
        return formatted(FormatStyle::Printf, text, &values::items(args)?);
    }
    formatted(FormatStyle::Printf, text, std::slice::from_ref(args))
}

/// `%` and `str.format`. Widths are bounded before anything is written: the sum of all numbers in
/// the format, and as many times the largest argument as the format has fields.
pub(super) fn formatted(style: FormatStyle, text: &str, args: &[Value]) -> Result<Value, Error> {
    let mark = if style == FormatStyle::Printf { '%' } else { '{' };
    let (mut bytes, mut run, mut fields, mut open) = (text.len(), 0_usize, 0_usize, 0_usize);
    for c in text.chars() {
        match c.to_digit(10) {
            Some(digit) => run = run.saturating_mul(10).saturating_add(digit as usize),
            None => bytes = bytes.saturating_add(std::mem::take(&mut run)),
        }
        fields = fields.saturating_add(usize::from(c == mark));
        open = match c {
            '{' => open.saturating_add(1),
            '}' => open.saturating_sub(1),
            _ => open,
        };
        if style == FormatStyle::StrFormat && open > 2 || style == FormatStyle::Printf && c == '*' {
            return Err(refuse("a width that comes from an argument is not supported"));
        }
    }
    let largest = args.iter().map(|arg| values::measure(arg).map(|size| size.bytes));
    let largest = largest.collect::<Result<Vec<_>, _>>()?.into_iter().max().unwrap_or(0);
    let grown = largest.saturating_add(64).saturating_mul(4).saturating_mul(fields);
    limits::room(bytes.saturating_add(run).saturating_add(grown))?;
    kept(format(style, text, args)?)
}

fn namespace(value: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let namespace = Namespace::new()?;
    if let Some(object) = value.as_ref().and_then(Value::as_object) {
        for (key, value) in object.try_iter_pairs().into_iter().flatten() {
            namespace.set(key.as_str().unwrap_or(""), value)?;
        }
    }
    for key in kwargs.args() {
        namespace.set(key, kwargs.get(key)?)?;
    }
    Ok(Value::from_object(namespace))
}

fn dict(value: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    if let Some(value) = value {
        values::weigh(std::slice::from_ref(&value))?;
        match (value.as_object(), value.kind()) {
            (Some(object), ValueKind::Map) => {
                pairs.extend(object.try_iter_pairs().into_iter().flatten());
            }
            _ => {
                for pair in elements(&value)? {
                    pairs.push((pair.get_item_by_index(0)?, pair.get_item_by_index(1)?));
                }
            }
        }
    }
    for key in kwargs.args() {
        pairs.push((Value::from(key), kwargs.get(key)?));
    }
    values::map(pairs)
}

fn range(first: i64, stop: Option<i64>, step: Option<i64>) -> Result<Value, Error> {
    const COUNT_MAX: i128 = 100_000;
    let (start, stop) = stop.map_or((0, first), |stop| (first, stop));
    let (start, stop, step) = (i128::from(start), i128::from(stop), i128::from(step.unwrap_or(1)));
    let span = if step < 0 { start.saturating_sub(stop) } else { stop.saturating_sub(start) };
    let width = step.saturating_abs();
    let rounded = span.max(0).saturating_add(width.saturating_sub(1));
    let count =
        rounded.checked_div(width).ok_or_else(|| refuse("range: the step must not be 0"))?;
    if count > COUNT_MAX {
        return Err(refuse(format!("a range of more than {COUNT_MAX} numbers")));
    }
    let number = |index| start.saturating_add(step.saturating_mul(index));
    let numbers = (0..count).filter_map(|index| i64::try_from(number(index)).ok());
    limits::room(usize::try_from(count).unwrap_or(0).saturating_mul(size_of::<Value>()))?;
    values::list(numbers.map(Value::from).collect(), Shape::List)
}

/// Methods of strings, lists and maps.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    defined(value, "")?;
    let bytes = values::weigh(args)?.saturating_add(values::measure(value)?.bytes);
    limits::work_bytes(bytes.saturating_mul(2))?;
    limits::room(bytes)?;
    let unknown = || Err(Error::from(ErrorKind::UnknownMethod));
    let Some(text) = value.as_str() else {
        if value.downcast_object_ref::<Namespace>().is_some() {
            return unknown();
        }
        let shape = if value.kind() == ValueKind::Map { Shape::View } else { Shape::List };
        let result = pycompat::unknown_method_callback(state, value, name, args)?;
        return if name == "get" { Ok(result) } else { values::adopt(result, shape) };
    };
    match (name, args) {
        ("join", [items]) => joined(text, &elements(items)?),
        ("replace", [old, new]) => replace_method(text, old, new, -1),
        ("replace", [old, new, count]) => {
            replace_method(text, old, new, count.as_i64().unwrap_or(-1))
        }
        ("strip" | "lstrip" | "rstrip", [characters]) => {
            let count = characters.as_str().map_or(0, str::len);
            limits::work(text.len().saturating_mul(count) / 8)?;
            values::adopt(pycompat::unknown_method_callback(state, value, name, args)?, Shape::List)
        }
        ("format", args) => formatted(FormatStyle::StrFormat, text, args),
        ("split" | "splitlines" | "rsplit", args) => {
            let separator = args.first().and_then(Value::as_str);
            let parts = match separator {
                Some(separator) => text.matches(separator).count(),
                None => text.split_whitespace().count().max(text.lines().count()),
            };
            limits::room(parts.saturating_mul(64).saturating_add(text.len()))?;
            values::adopt(pycompat::unknown_method_callback(state, value, name, args)?, Shape::List)
        }
        _ => {
            values::adopt(pycompat::unknown_method_callback(state, value, name, args)?, Shape::List)
        }
    }
}

fn replace_method(text: &str, old: &Value, new: &Value, count: i64) -> Result<Value, Error> {
    match (old.as_str(), new.as_str()) {
        (Some(old), Some(new)) => replace(text, old, new, count),
        _ => Err(refuse("replace() takes two strings")),
    }
}
