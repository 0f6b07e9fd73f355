//! The functions that stand for jinja2's operators, with Python's meaning. Each asks the meter for
//! room before it builds and counts the work of what it walks.

use std::cmp::Ordering;

use minijinja::value::{Rest, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};

use super::limits::{self, refuse};
use super::reader::RESERVED;
use super::values::{self, List, Map, Namespace, Shape};
use super::{methods, python};

/// Adds the operators to an environment.
pub(super) fn install(env: &mut Environment) {
    let name = |name: &str| format!("{RESERVED}{name}");
    env.add_function(name("sum"), |label: &str, values: Rest<Value>| fold(label, &values, add));
    env.add_function(name("product"), |label: &str, values: Rest<Value>| {
        fold(label, &values, multiply)
    });
    env.add_function(name("power"), |label: &str, values: Rest<Value>| fold(label, &values, power));
    env.add_function(name("concat"), |_: &str, values: Rest<Value>| concat(&values));
    env.add_function(name("compare"), |label: &str, values: Rest<Value>| compare(label, &values));
    env.add_function(name("item"), item);
    env.add_function(name("slice"), slice);
    env.add_function(name("list"), |value: Value| {
        values::list(values::items(&value)?, Shape::List)
    });
    env.add_function(name("tuple"), |items: Rest<Value>| values::list(items.0, Shape::Tuple));
    env.add_function(name("map"), |value: Value| map(&value));
    env.add_function(name("spread"), |value: Value| map(&value));
    env.add_function(name("iterate"), iterate);
    env.add_function(name("set"), |target: Value, name: &str, value: Value| {
        match target.downcast_object_ref::<Namespace>() {
            Some(namespace) => namespace.set(name, value),
            None => Err(refuse("cannot assign attribute on non-namespace object")),
        }
    });
}

fn fold(
    label: &str,
    values: &[Value],
    act: fn(&str, &Value, &Value) -> Result<Value, Error>,
) -> Result<Value, Error> {
    let mut parts = label.split('|');
    let mut marks = parts.next().unwrap_or("").split(' ');
    let names: Vec<&str> = parts.collect();
    let name = |index: usize| names.get(index).copied().unwrap_or("");
    let (first, rest) = values.split_first().ok_or_else(|| refuse("no operand"))?;
    defined(first, name(0))?;
    let mut value = first.clone();
    for (index, operand) in rest.iter().enumerate() {
        defined(operand, name(index.saturating_add(1)))?;
        limits::work(1)?;
        value = act(marks.next().unwrap_or(""), &value, operand)?;
        limits::keep(&value);
    }
    Ok(value)
}

/// Refuses an undefined operand by name.
pub(super) fn defined(value: &Value, name: &str) -> Result<(), Error> {
    if !value.is_undefined() {
        return Ok(());
    }
    Err(match name {
        "" => Error::new(ErrorKind::UndefinedError, "an operand is undefined"),
        name => Error::new(ErrorKind::UndefinedError, format!("'{name}' is undefined")),
    })
}

fn unsupported(mark: &str, left: &Value, right: &Value) -> Error {
    let (left, right) = (python::type_name(left), python::type_name(right));
    refuse(format!("unsupported operand types for {mark}: '{left}' and '{right}'"))
}

#[derive(Clone, Copy)]
enum Number {
    Integer(i128),
    Float(f64),
}

impl Number {
    fn of(value: &Value) -> Option<Number> {
        match value.kind() {
            ValueKind::Bool => Some(Number::Integer(i128::from(value.is_true()))),
            ValueKind::Number if value.is_integer() => {
                Some(Number::Integer(i128::try_from(value.clone()).ok()?))
            }
            ValueKind::Number => Some(Number::Float(f64::try_from(value.clone()).ok()?)),
            _ => None,
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "Python converts an int in the same way")]
    fn float(self) -> f64 {
        match self {
            Number::Integer(value) => value as f64,
            Number::Float(value) => value,
        }
    }
}

fn integer(value: Option<i128>) -> Result<Value, Error> {
    let value = value.ok_or_else(|| refuse("an integer exceeds 128 bits"))?;
    Ok(i64::try_from(value).map_or_else(|_| Value::from(value), Value::from))
}

fn sequence(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

fn shape(value: &Value) -> Shape {
    match value.downcast_object_ref::<List>() {
        Some(list) => list.shape,
        None if value.is_tuple() => Shape::Tuple,
        None => Shape::List,
    }
}

/// `+` and `-`.
pub(super) fn add(mark: &str, left: &Value, right: &Value) -> Result<Value, Error> {
    if let (Some(a), Some(b)) = (Number::of(left), Number::of(right)) {
        return match (a, b, mark) {
            (Number::Integer(a), Number::Integer(b), "+") => integer(a.checked_add(b)),
            (Number::Integer(a), Number::Integer(b), _) => integer(a.checked_sub(b)),
            (a, b, "+") => Ok(Value::from(a.float() + b.float())),
            (a, b, _) => Ok(Value::from(a.float() - b.float())),
        };
    }
    if mark != "+" {
        return Err(unsupported(mark, left, right));
    }
    if let (Some(a), Some(b)) = (left.as_str(), right.as_str()) {
        limits::room(a.len().saturating_add(b.len()))?;
        return Ok(Value::from([a, b].concat()));
    }
    if sequence(left) && sequence(right) && shape(left) == shape(right) {
        let (mut items, more) = (values::items(left)?, values::items(right)?);
        limits::room(items.len().saturating_add(more.len()).saturating_mul(48))?;
        items.extend(more);
        return values::list(items, shape(left));
    }
    Err(unsupported(mark, left, right))
}

fn multiply(mark: &str, left: &Value, right: &Value) -> Result<Value, Error> {
    if mark == "%" && left.as_str().is_some() {
        return methods::percent(left, right);
    }
    if let (Some(a), Some(b)) = (Number::of(left), Number::of(right)) {
        return arithmetic(mark, a, b);
    }
    if mark != "*" {
        return Err(unsupported(mark, left, right));
    }
    let (value, count) = match (Number::of(left), Number::of(right)) {
        (None, Some(Number::Integer(count))) => (left, count),
        (Some(Number::Integer(count)), None) => (right, count),
        _ => return Err(unsupported(mark, left, right)),
    };
    let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
    if let Some(text) = value.as_str() {
        limits::room(text.len().saturating_mul(count))?;
        return Ok(Value::from(text.repeat(count)));
    }
    if !sequence(value) {
        return Err(unsupported(mark, left, right));
    }
    let items = values::items(value)?;
    limits::room(items.len().saturating_mul(count).saturating_mul(size_of::<Value>()))?;
    let count = if items.is_empty() { 0 } else { count };
    let repeated = std::iter::repeat_n(&items, count).flatten().cloned();
    values::list(repeated.collect(), shape(value))
}

fn arithmetic(mark: &str, a: Number, b: Number) -> Result<Value, Error> {
    let zero = match b {
        Number::Integer(b) => b == 0,
        Number::Float(b) => b == 0.0,
    };
    if zero && mark != "*" {
        return Err(refuse("division by zero"));
    }
    match (mark, a, b) {
        ("*", Number::Integer(a), Number::Integer(b)) => integer(a.checked_mul(b)),
        ("*", a, b) => Ok(Value::from(a.float() * b.float())),
        ("/", a, b) => Ok(Value::from(a.float() / b.float())),
        // Python rounds towards minus infinity, and the remainder has the sign of the divisor.
        ("//", Number::Integer(a), Number::Integer(b)) => {
            let uneven = a.checked_rem(b).unwrap_or(0) != 0 && (a < 0) != (b < 0);
            integer(a.checked_div(b).and_then(|q| q.checked_sub(i128::from(uneven))))
        }
        ("//", a, b) => Ok(Value::from((a.float() / b.float()).floor())),
        (_, Number::Integer(a), Number::Integer(b)) => {
            let rest = a.checked_rem(b).unwrap_or(0);
            let wrong = rest != 0 && (rest < 0) != (b < 0);
            integer(rest.checked_add(if wrong { b } else { 0 }))
        }
        (_, a, b) => {
            let (a, b) = (a.float(), b.float());
            let rest = a % b;
            Ok(Value::from(if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }))
        }
    }
}

fn power(_: &str, left: &Value, right: &Value) -> Result<Value, Error> {
    match (Number::of(left), Number::of(right)) {
        (Some(Number::Integer(a)), Some(Number::Integer(b))) if b >= 0 => {
            integer(u32::try_from(b).ok().and_then(|b| a.checked_pow(b)))
        }
        (Some(a), Some(b)) => Ok(Value::from(a.float().powf(b.float()))),
        _ => Err(unsupported("**", left, right)),
    }
}

fn concat(values: &[Value]) -> Result<Value, Error> {
    let mut writer = python::Writer::new();
    for value in values {
        writer.text_of(value)?;
    }
    let value = Value::from(writer.finish()?);
    limits::keep(&value);
    Ok(value)
}

fn compare(label: &str, values: &[Value]) -> Result<Value, Error> {
    let marks = label.split('|').next().unwrap_or("").split(' ');
    for (mark, pair) in marks.zip(values.windows(2)) {
        let [left, right] = pair else { continue };
        if !holds(mark, left, right)? {
            return Ok(Value::from(false));
        }
    }
    Ok(Value::from(true))
}

pub(super) fn holds(mark: &str, left: &Value, right: &Value) -> Result<bool, Error> {
    match mark {
        "==" => equal(left, right),
        "!=" => Ok(!equal(left, right)?),
        "in" => contains(right, left),
        "notin" => Ok(!contains(right, left)?),
        _ => {
            defined(left, "")?;
            defined(right, "")?;
            let order = order(left, right)?.ok_or_else(|| unsupported(mark, left, right))?;
            Ok(match mark {
                "<" => order.is_lt(),
                "<=" => order.is_le(),
                ">" => order.is_gt(),
                _ => order.is_ge(),
            })
        }
    }
}

/// Whether two values are equal; counts the work.
pub(super) fn equal(left: &Value, right: &Value) -> Result<bool, Error> {
    if left.is_undefined() || right.is_undefined() {
        return Ok(left.is_undefined() && right.is_undefined());
    }
    if let (Some(a), Some(b)) = (left.as_str(), right.as_str()) {
        limits::work_bytes(a.len().min(b.len()))?;
        return Ok(a == b);
    }
    if let (Some(a), Some(b)) = (Number::of(left), Number::of(right)) {
        return Ok(match (a, b) {
            (Number::Integer(a), Number::Integer(b)) => a == b,
            (a, b) => a.float() == b.float(),
        });
    }
    let (a, b) = (values::measure(left)?, values::measure(right)?);
    limits::work(a.bytes.min(b.bytes) / 8)?;
    Ok(left == right)
}

fn order(left: &Value, right: &Value) -> Result<Option<Ordering>, Error> {
    if let (Some(a), Some(b)) = (left.as_str(), right.as_str()) {
        limits::work_bytes(a.len().min(b.len()))?;
        return Ok(Some(a.cmp(b)));
    }
    Ok(match (Number::of(left), Number::of(right)) {
        (Some(Number::Integer(a)), Some(Number::Integer(b))) => Some(a.cmp(&b)),
        (Some(a), Some(b)) => a.float().partial_cmp(&b.float()),
        _ if sequence(left) && sequence(right) => {
            for (a, b) in values::items(left)?.iter().zip(values::items(right)?) {
                if !equal(a, &b)? {
                    return order(a, &b);
                }
            }
            left.len().zip(right.len()).map(|(a, b)| a.cmp(&b))
        }
        _ => None,
    })
}

fn contains(container: &Value, value: &Value) -> Result<bool, Error> {
    if container.is_undefined() {
        return Ok(false);
    }
    if let Some(text) = container.as_str() {
        limits::work_bytes(text.len())?;
        let Some(part) = value.as_str() else {
            let got = python::type_name(value);
            return Err(refuse(format!("'in <string>' requires a string, not '{got}'")));
        };
        return Ok(text.contains(part));
    }
    match container.kind() {
        ValueKind::Map => {
            let object = container.as_object();
            Ok(object.is_some_and(|object| object.get_value(value).is_some()))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            for item in values::items(container)? {
                if equal(&item, value)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => {
            let kind = python::type_name(container);
            Err(refuse(format!("argument of type '{kind}' is not iterable")))
        }
    }
}

fn item(label: &str, value: &Value, key: &Value) -> Result<Value, Error> {
    defined(value, label)?;
    if let Some(text) = value.as_str() {
        limits::work_bytes(text.len())?;
    }
    value.get_item(key)
}

fn slice(
    label: &str,
    value: &Value,
    start: &Value,
    stop: &Value,
    step: &Value,
) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(defined(value, label).err().unwrap_or_else(|| refuse("undefined")));
    }
    let bound = |value: &Value| -> Result<Option<i128>, Error> {
        match Number::of(value) {
            Some(Number::Integer(number)) => Ok(Some(number)),
            None if value.is_none() => Ok(None),
            _ => Err(refuse("slice indices must be integers or None")),
        }
    };
    let step = bound(step)?.unwrap_or(1);
    if step == 0 {
        return Err(refuse("slice step cannot be zero"));
    }
    let text = value.as_str();
    if text.is_none() && !sequence(value) {
        let kind = python::type_name(value);
        return Err(refuse(format!("'{kind}' object cannot be sliced")));
    }
    if let (Some(text), 1) = (text, step) {
        limits::room(text.len())?;
        let indices = indices(text.chars().count(), bound(start)?, bound(stop)?, 1);
        let taken = indices.clone().count();
        let from = indices.take(1).next().unwrap_or(0);
        let part = Value::from(text.chars().skip(from).take(taken).collect::<String>());
        limits::keep(&part);
        return Ok(part);
    }
    let items = values::items(value)?;
    let indices = indices(items.len(), bound(start)?, bound(stop)?, step);
    let taken: Vec<Value> = indices.filter_map(|index| items.get(index).cloned()).collect();
    match text {
        Some(_) => Ok(Value::from(taken.iter().filter_map(Value::as_str).collect::<String>())),
        None => values::list(taken, shape(value)),
    }
}

/// Python's `slice.indices`: the places that a slice takes from a sequence of that length.
fn indices(
    length: usize,
    start: Option<i128>,
    stop: Option<i128>,
    step: i128,
) -> impl Iterator<Item = usize> + Clone {
    let length = i128::try_from(length).unwrap_or(i128::MAX);
    let (low, high) = if step > 0 { (0, length) } else { (-1, length.saturating_sub(1)) };
    let clamp = |bound: Option<i128>, default: i128| match bound {
        None => default,
        Some(at) if at < 0 => at.saturating_add(length).clamp(low, high),
        Some(at) => at.clamp(low, high),
    };
    let (first, last) = if step > 0 { (low, high) } else { (high, low) };
    let (first, last) = (clamp(start, first), clamp(stop, last));
    std::iter::successors(Some(first), move |at| at.checked_add(step))
        .take_while(move |at| if step > 0 { *at < last } else { *at > last })
        .filter_map(|at| usize::try_from(at).ok())
}

fn map(value: &Value) -> Result<Value, Error> {
    if value.downcast_object_ref::<Map>().is_some() {
        limits::work(value.len().unwrap_or(0))?;
        return Ok(value.clone());
    }
    if value.kind() != ValueKind::Map {
        return Err(refuse(format!("'{}' object is not a mapping", python::type_name(value))));
    }
    let object = value.as_object();
    let pairs = object.and_then(|object| object.try_iter_pairs()).into_iter().flatten();
    values::map(pairs.collect())
}

/// What a loop runs over. Characters of a string are made here, where they are counted.
fn iterate(value: Value) -> Result<Value, Error> {
    if value.is_undefined() {
        return Ok(value);
    }
    match value.kind() {
        ValueKind::String => values::list(values::items(&value)?, Shape::List),
        ValueKind::Seq | ValueKind::Iterable | ValueKind::Map => {
            limits::work(value.len().unwrap_or(1))?;
            Ok(value)
        }
        _ => Err(refuse(format!("'{}' object is not iterable", python::type_name(&value)))),
    }
}
