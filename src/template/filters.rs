//! Filters and tests. Those that can multiply a value, or that jinja2 and
//! minijinja read differently, are ours; the others are minijinja's behind a guard that weighs the
//! arguments before and adopts the result after. Nothing else is in the environment.

use minijinja::formatting::FormatStyle;
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error, State, filters as theirs, tests as checks};

use super::limits::{self, refuse};
use super::methods::formatted;
use super::operators::add;
use super::python::{self, Json, Writer};
use super::reader::RESERVED;
use super::values::{self, Shape};

/// Adds filters, tests, methods and functions to an environment.
pub(super) fn install(env: &mut Environment<'static>) {
    install_filters(env);
    install_guarded(env);
    install_tests(env);
}

fn install_filters(env: &mut Environment<'static>) {
    env.add_filter("tojson", tojson);
    env.add_filter("string", |value: &Value| kept(text_of(value)?));
    env.add_filter("safe", |value: &Value| kept(text_of(value)?));
    env.add_filter("length", length);
    env.add_filter("count", length);
    env.add_filter("indent", indent);
    env.add_filter("join", join);
    env.add_filter("replace", |text: &Value, old: &Value, new: &Value, count: Option<i64>| {
        replace(&text_of(text)?, &text_of(old)?, &text_of(new)?, count.unwrap_or(-1))
    });
    env.add_filter("list", |value: Value| values::list(elements(&value)?, Shape::List));
    env.add_filter("batch", batch);
    env.add_filter("slice", slice);
    env.add_filter("format", |text: &Value, args: Rest<Value>| {
        formatted(FormatStyle::Printf, &text_of(text)?, &args)
    });
    env.add_filter("sum", sum);
    env.add_filter("escape", escape);
    env.add_filter("e", escape);
}

/// Filters of minijinja's; `true` marks those that give a generator in Python.
fn install_guarded(env: &mut Environment<'static>) {
    macro_rules! guarded {
        ($($name:literal $function:ident $generator:literal;)*) => {$(
            env.add_filter(concat!("chord__", $name), theirs::$function);
            env.add_filter($name, |state: &mut State, args: Rest<Value>, named: Kwargs| {
                guard(state, concat!("chord__", $name), args.0, named, $generator)
            });
        )*};
    }
    guarded! {
        "abs" abs false; "attr" attr false; "bool" bool false; "capitalize" capitalize false;
        "d" default false; "default" default false; "dictsort" dictsort false;
        "first" first false; "float" float false; "groupby" groupby false; "int" int false;
        "items" items true; "last" last false; "lower" lower false; "map" map true;
        "max" max false; "min" min false; "reject" reject true; "rejectattr" rejectattr true;
        "reverse" reverse true; "round" round false; "select" select true;
        "selectattr" selectattr true; "sort" sort false; "title" title false;
        "trim" trim false; "unique" unique true; "upper" upper false; "urlencode" urlencode false;
    }
}

fn guard(
    state: &mut State,
    name: &str,
    mut args: Vec<Value>,
    named: Kwargs,
    generator: bool,
) -> Result<Value, Error> {
    let mut texts = args.iter().skip(1).filter_map(Value::as_str).map(str::len).sum::<usize>();
    for name in named.args() {
        let given: Value = named.peek(name)?;
        texts = texts.saturating_add(given.as_str().map_or(0, str::len));
    }
    if named.args().next().is_some() {
        args.push(Value::from(named));
    }
    // `map` and its like call filters and tests by name; ours behind the guard stay hidden.
    for arg in args.iter().skip(1) {
        let text = arg.as_str().unwrap_or("");
        if text.split_whitespace().collect::<String>().starts_with(RESERVED) {
            return Err(refuse(format!("names that begin with {RESERVED} are reserved")));
        }
    }
    // Texts among the arguments (paths, characters to strip) may be read once for each item.
    let length = args.first().map_or(0, |value| match value.as_str() {
        Some(text) => text.len(),
        None => value.len().unwrap_or(0),
    });
    limits::work(length.saturating_add(length.saturating_mul(texts) / 8))?;
    // What looks at items only, not into them, costs no more than that.
    let text = args.first().is_some_and(|value| value.as_str().is_some());
    let shallow = match name.strip_prefix(RESERVED).unwrap_or(name) {
        "default" | "d" => true,
        "map" | "select" | "reject" | "selectattr" | "rejectattr" | "first" | "last" | "items"
        | "reverse" | "attr" => !text,
        _ => false,
    };
    if !shallow {
        // Sorting and comparing read a value about log n times; changing case can triple a text.
        let bytes = values::weigh(&args)?;
        limits::work_bytes(bytes.saturating_mul(4))?;
        limits::room(bytes)?;
    }
    check_receiver(name, &args)?;
    let value = state.apply_filter(name, &args)?;
    let shape = if generator { Shape::Generator } else { Shape::List };
    values::adopt(value, shape)
}

/// What Python refuses and minijinja lets pass: running over None. (`map` and `select` let it pass
/// in Python too.)
fn check_receiver(name: &str, args: &[Value]) -> Result<(), Error> {
    let runs = matches!(
        name.strip_prefix(RESERVED),
        Some(
            "sort"
                | "unique"
                | "first"
                | "last"
                | "reverse"
                | "sum"
                | "min"
                | "max"
                | "items"
                | "dictsort"
                | "groupby"
        )
    );
    if runs && args.first().is_some_and(Value::is_none) {
        return Err(refuse("'NoneType' object is not iterable"));
    }
    Ok(())
}

fn install_tests(env: &mut Environment<'static>) {
    macro_rules! tests {
        ($($name:literal $function:ident;)*) => {$(
            env.add_test($name, checks::$function);
        )*};
    }
    tests! {
        "undefined" is_undefined; "defined" is_defined; "none" is_none; "boolean" is_boolean;
        "odd" is_odd; "even" is_even; "divisibleby" is_divisibleby; "number" is_number;
        "integer" is_integer; "float" is_float; "string" is_string; "mapping" is_mapping;
        "true" is_true; "false" is_false;
    }
    env.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map)
    });
    env.add_test("iterable", |value: &Value| {
        use ValueKind::{Iterable, Map, Seq, String, Undefined};
        matches!(value.kind(), Iterable | Map | Seq | String | Undefined)
    });
    env.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
    macro_rules! guarded {
        ($($name:literal $function:expr;)*) => {$(
            env.add_test($name, |value: &Value, other: &Value| -> Result<bool, Error> {
                values::weigh(&[value.clone(), other.clone()])?;
                let check: fn(&Value, &Value) -> Result<bool, Error> = $function;
                check(value, other)
            });
        )*};
    }
    use super::operators::holds;
    guarded! {
        "eq" |a, b| holds("==", a, b); "equalto" |a, b| holds("==", a, b);
        "==" |a, b| holds("==", a, b); "ne" |a, b| holds("!=", a, b);
        "!=" |a, b| holds("!=", a, b); "lt" |a, b| holds("<", a, b);
        "lessthan" |a, b| holds("<", a, b); "<" |a, b| holds("<", a, b);
        "le" |a, b| holds("<=", a, b); "<=" |a, b| holds("<=", a, b);
        "gt" |a, b| holds(">", a, b); "greaterthan" |a, b| holds(">", a, b);
        ">" |a, b| holds(">", a, b); "ge" |a, b| holds(">=", a, b);
        ">=" |a, b| holds(">=", a, b); "in" |a, b| holds("in", a, b);
        "sameas" |a, b| Ok(a.kind() == b.kind() && holds("==", a, b)?);
    }
    env.add_test("lower", |value: &Value| cased(value, char::is_lowercase, char::is_uppercase));
    env.add_test("upper", |value: &Value| cased(value, char::is_uppercase, char::is_lowercase));
}

fn cased(value: &Value, has: fn(char) -> bool, lacks: fn(char) -> bool) -> Result<bool, Error> {
    let text = text_of(value)?;
    Ok(text.chars().any(has) && !text.chars().any(lacks))
}

/// `str(value)`.
pub(super) fn text_of(value: &Value) -> Result<String, Error> {
    let mut writer = Writer::new();
    writer.text_of(value)?;
    writer.finish()
}

/// A text as a value that the meter counts.
pub(super) fn kept(text: String) -> Result<Value, Error> {
    let value = Value::from(text);
    limits::keep(&value);
    Ok(value)
}

/// What Python iterates over: nothing for an undefined value, an error for None and numbers.
pub(super) fn elements(value: &Value) -> Result<Vec<Value>, Error> {
    if value.is_undefined() { Ok(Vec::new()) } else { values::items(value) }
}

fn tojson(value: &Value, indent: Option<Value>, kwargs: Kwargs) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(refuse("Object of type Undefined is not JSON serializable"));
    }
    let ascii: Option<bool> = kwargs.get("ensure_ascii")?;
    let sorted: Option<bool> = kwargs.get("sort_keys")?;
    let separators: Option<Value> = kwargs.get("separators")?;
    let indent = match indent {
        None => kwargs.get("indent")?,
        some => some,
    };
    kwargs.assert_all_used()?;
    let indent = indent.filter(|indent| !indent.is_none()).map(|indent| match indent.as_str() {
        Some(text) => (text.to_owned(), 1),
        None => (" ".to_owned(), indent.as_usize().unwrap_or(0)),
    });
    let comma = if indent.is_some() { "," } else { ", " };
    let mut style = Json {
        ascii: ascii.unwrap_or(false),
        sorted: sorted.unwrap_or(false),
        comma: comma.to_owned(),
        colon: ": ".to_owned(),
        indent,
    };
    if let Some(separators) = separators.filter(|separators| !separators.is_none()) {
        style.comma = text_of(&separators.get_item_by_index(0)?)?;
        style.colon = text_of(&separators.get_item_by_index(1)?)?;
    }
    let mut writer = Writer::new();
    writer.json(value, &style, 0)?;
    kept(writer.finish()?)
}

fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() {
        return Ok(0);
    }
    if let Some(text) = value.as_str() {
        limits::work_bytes(text.len())?;
    }
    let generator = python::type_name(value) == "generator";
    value.len().filter(|_| !generator).ok_or_else(|| {
        refuse(format!("object of type '{}' has no len()", python::type_name(value)))
    })
}

/// jinja2's `indent`: lines but the first are moved, empty ones only if `blank`.
fn indent(
    text: &Value,
    width: Option<Value>,
    first: Option<bool>,
    blank: Option<bool>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let width = width.map_or_else(|| kwargs.get::<Option<Value>>("width"), |w| Ok(Some(w)))?;
    let first = first.map_or_else(|| kwargs.get("first"), |first| Ok(Some(first)))?;
    let blank = blank.map_or_else(|| kwargs.get("blank"), |blank| Ok(Some(blank)))?;
    kwargs.assert_all_used()?;
    let (first, blank) = (first.unwrap_or(false), blank.unwrap_or(false));
    let (step, count) = match &width {
        Some(width) => match width.as_str() {
            Some(step) => (step, 1),
            None => (" ", width.as_usize().ok_or_else(|| refuse("indent: wrong width"))?),
        },
        None => (" ", 4),
    };
    let mut writer = Writer::new();
    for (index, line) in text_of(text)?.split('\n').enumerate() {
        writer.push(if index == 0 { "" } else { "\n" })?;
        if if index == 0 { first } else { blank || !line.is_empty() } {
            writer.repeat(step, count)?;
        }
        writer.push(line)?;
    }
    kept(writer.finish()?)
}

fn join(
    value: &Value,
    separator: Option<Value>,
    attribute: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let separator = separator.map_or_else(|| kwargs.get::<Option<Value>>("d"), |s| Ok(Some(s)))?;
    let attribute =
        attribute.map_or_else(|| kwargs.get::<Option<Value>>("attribute"), |a| Ok(Some(a)))?;
    kwargs.assert_all_used()?;
    let separator = separator.map_or_else(|| Ok(String::new()), |s| text_of(&s))?;
    let mut items = elements(value)?;
    if let Some(attribute) = attribute.filter(|attribute| !attribute.is_none()) {
        for item in &mut items {
            *item = item.get_item(&attribute)?;
        }
    }
    joined(&separator, &items)
}

fn sum(
    value: &Value,
    attribute: Option<Value>,
    start: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let attribute =
        attribute.map_or_else(|| kwargs.get::<Option<Value>>("attribute"), |a| Ok(Some(a)))?;
    let start = start.map_or_else(|| kwargs.get::<Option<Value>>("start"), |s| Ok(Some(s)))?;
    kwargs.assert_all_used()?;
    let mut total = start.unwrap_or_else(|| Value::from(0));
    for mut item in elements(value)? {
        if let Some(attribute) = attribute.as_ref().filter(|attribute| !attribute.is_none()) {
            item = item.get_item(attribute)?;
        }
        limits::work(1)?;
        total = add("+", &total, &item)?;
    }
    Ok(total)
}

/// `separator.join(items)`.
pub(super) fn joined(separator: &str, items: &[Value]) -> Result<Value, Error> {
    let mut writer = Writer::new();
    for (index, item) in items.iter().enumerate() {
        writer.push(if index == 0 { "" } else { separator })?;
        writer.text_of(item)?;
    }
    kept(writer.finish()?)
}

/// `text.replace(old, new, count)`; a negative count is all.
pub(super) fn replace(text: &str, old: &str, new: &str, count: i64) -> Result<Value, Error> {
    limits::work_bytes(text.len())?;
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let found = text.matches(old).count().min(count);
    let grown = new.len().saturating_sub(old.len()).saturating_mul(found);
    limits::room(text.len().saturating_add(grown))?;
    kept(text.replacen(old, new, found))
}

/// jinja2's `batch`: rows of `count` items, the last one filled up.
fn batch(value: &Value, count: usize, fill: Option<Value>) -> Result<Value, Error> {
    if count == 0 {
        return Err(refuse("batch: the count must not be 0"));
    }
    let fill = fill.filter(|fill| !fill.is_none());
    let mut rows = Vec::new();
    for chunk in elements(value)?.chunks(count) {
        let mut row = chunk.to_vec();
        if let Some(fill) = &fill {
            limits::room(count.saturating_mul(size_of::<Value>()))?;
            row.resize(count, fill.clone());
        }
        rows.push(values::list(row, Shape::List)?);
    }
    values::list(rows, Shape::Generator)
}

/// jinja2's `slice`: that many columns, the first ones longer, the others filled up.
fn slice(value: &Value, count: usize, fill: Option<Value>) -> Result<Value, Error> {
    let items = elements(value)?;
    let (short, longer) = match (items.len().checked_div(count), items.len().checked_rem(count)) {
        (Some(short), Some(longer)) => (short, longer),
        _ => return Err(refuse("slice: the count must not be 0")),
    };
    limits::room(count.saturating_mul(160))?;
    let fill = fill.filter(|fill| !fill.is_none());
    let mut rest = items.into_iter();
    let mut columns = Vec::new();
    for index in 0..count {
        let take = short.saturating_add(usize::from(index < longer));
        let mut column: Vec<Value> = rest.by_ref().take(take).collect();
        if let Some(fill) = fill.as_ref().filter(|_| longer > 0 && index >= longer) {
            column.push(fill.clone());
        }
        columns.push(values::list(column, Shape::List)?);
    }
    values::list(columns, Shape::Generator)
}

fn escape(value: &Value) -> Result<Value, Error> {
    let mut writer = Writer::new();
    for c in text_of(value)?.chars() {
        let mut buffer = [0_u8; 4];
        writer.push(match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            '"' => "&#34;",
            '\'' => "&#39;",
            c => c.encode_utf8(&mut buffer),
        })?;
    }
    kept(writer.finish()?)
}
