//! Values as Python prints them: `str`, `repr`, `json.dumps` and `strftime`. Everything is written
//! into a `Writer` that stops at the size which the meter allows.

use std::fmt::Write as _;

use minijinja::value::ValueKind;
use minijinja::{Error, Value};

use super::Clock;
use super::limits::{self, VALUE_DEPTH_MAX, refuse};
use super::values::{List, Namespace, Shape};

/// Text that grows up to a bound.
pub(super) struct Writer {
    text: String,
    max: usize,
    counted: usize,
}

impl Writer {
    /// An empty text that may grow as far as the meter lets a value grow.
    pub fn new() -> Writer {
        Writer { text: String::new(), max: limits::value_bytes_max(), counted: 0 }
    }

    /// Appends text.
    pub fn push(&mut self, text: &str) -> Result<(), Error> {
        let bytes = self.text.len().saturating_add(text.len());
        // The meter is asked whenever the text has doubled; short texts do not trouble it.
        if bytes > self.counted.saturating_add(4096) {
            limits::room(bytes)?;
            self.counted = bytes.saturating_mul(2);
        }
        if bytes > self.max {
            return Err(refuse(format!("a value would exceed {} bytes", self.max)));
        }
        self.text.push_str(text);
        Ok(())
    }

    /// Appends spaces or another filling.
    pub fn repeat(&mut self, text: &str, count: usize) -> Result<(), Error> {
        let bytes = text.len().saturating_mul(count);
        if self.text.len().saturating_add(bytes) > self.max {
            return Err(refuse(format!("a value would exceed {} bytes", self.max)));
        }
        limits::room(bytes)?;
        self.text.extend(std::iter::repeat_n(text, count));
        Ok(())
    }

    /// The text; its work is counted.
    pub fn finish(self) -> Result<String, Error> {
        limits::work_bytes(self.text.len())?;
        Ok(self.text)
    }

    /// Appends `str(value)`.
    pub fn text_of(&mut self, value: &Value) -> Result<(), Error> {
        match value.as_str() {
            Some(text) => self.push(text),
            None if value.is_undefined() => Ok(()),
            None => self.repr(value, 0),
        }
    }

    /// Appends `repr(value)`.
    fn repr(&mut self, value: &Value, level: u32) -> Result<(), Error> {
        limits::work(1)?;
        if let Some(text) = value.as_str() {
            return self.push(&quoted(text));
        }
        if level > VALUE_DEPTH_MAX {
            return Err(refuse("a value is nested too deep to be printed"));
        }
        let below = level.saturating_add(1);
        match value.kind() {
            ValueKind::Undefined => self.push("Undefined"),
            ValueKind::None => self.push("None"),
            ValueKind::Bool => self.push(if value.is_true() { "True" } else { "False" }),
            ValueKind::Number => self.push(&number(value)),
            ValueKind::Seq | ValueKind::Iterable => {
                let tuple = value.is_tuple()
                    || value.downcast_object_ref::<List>().is_some_and(|l| l.shape == Shape::Tuple);
                self.push(if tuple { "(" } else { "[" })?;
                let mut count = 0_usize;
                for item in value.try_iter()? {
                    self.push(if count == 0 { "" } else { ", " })?;
                    self.repr(&item, below)?;
                    count = count.saturating_add(1);
                }
                self.push(match (tuple, count) {
                    (true, 1) => ",)",
                    (true, _) => ")",
                    (false, _) => "]",
                })
            }
            ValueKind::Map => self.repr_map(value, below),
            _ => self.push(&value.to_string()),
        }
    }

    fn repr_map(&mut self, value: &Value, level: u32) -> Result<(), Error> {
        let Some(object) = value.as_object() else { return Ok(()) };
        if object.type_name().contains("Loop") {
            return self.push("<LoopContext>");
        }
        let namespace = value.downcast_object_ref::<Namespace>().is_some();
        self.push(if namespace { "<Namespace {" } else { "{" })?;
        for (index, (key, item)) in object.try_iter_pairs().into_iter().flatten().enumerate() {
            self.push(if index == 0 { "" } else { ", " })?;
            self.repr(&key, level)?;
            self.push(": ")?;
            self.repr(&item, level)?;
        }
        self.push(if namespace { "}>" } else { "}" })
    }

    /// Appends `json.dumps(value)`.
    pub fn json(&mut self, value: &Value, style: &Json, level: u32) -> Result<(), Error> {
        limits::work(1)?;
        if level > VALUE_DEPTH_MAX {
            return Err(refuse("a value is nested too deep for JSON"));
        }
        if let Some(text) = value.as_str() {
            return self.json_string(text, style.ascii);
        }
        match value.kind() {
            ValueKind::None => self.push("null"),
            ValueKind::Bool => self.push(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.push(&json_number(value)),
            ValueKind::Seq => self.json_list(value, style, level),
            ValueKind::Map if value.downcast_object_ref::<Namespace>().is_none() => {
                self.json_map(value, style, level)
            }
            _ => {
                let kind = type_name(value);
                Err(refuse(format!("Object of type {kind} is not JSON serializable")))
            }
        }
    }

    fn json_list(&mut self, value: &Value, style: &Json, level: u32) -> Result<(), Error> {
        let below = level.saturating_add(1);
        let mut empty = true;
        self.push("[")?;
        for item in value.try_iter()? {
            self.json_gap(style, below, empty)?;
            self.json(&item, style, below)?;
            empty = false;
        }
        self.json_end(style, level, empty, "]")
    }

    fn json_map(&mut self, value: &Value, style: &Json, level: u32) -> Result<(), Error> {
        let below = level.saturating_add(1);
        let object = value.as_object();
        let pairs = object.and_then(|object| object.try_iter_pairs()).into_iter().flatten();
        let mut pairs: Vec<(Value, Value)> = pairs.collect();
        if style.sorted {
            limits::work(pairs.len().saturating_mul(8))?;
            pairs.sort_by(|(a, _), (b, _)| a.as_str().cmp(&b.as_str()));
        }
        let empty = pairs.is_empty();
        self.push("{")?;
        for (index, (key, item)) in pairs.iter().enumerate() {
            self.json_gap(style, below, index == 0)?;
            match (key.as_str(), key.kind()) {
                (Some(text), _) => self.json_string(text, style.ascii)?,
                (None, ValueKind::Number | ValueKind::Bool | ValueKind::None) => {
                    self.push("\"")?;
                    self.json(key, style, below)?;
                    self.push("\"")?;
                }
                _ => return Err(refuse("keys of JSON must be strings or numbers")),
            }
            self.push(&style.colon)?;
            self.json(item, style, below)?;
        }
        self.json_end(style, level, empty, "}")
    }

    fn json_gap(&mut self, style: &Json, level: u32, first: bool) -> Result<(), Error> {
        self.push(if first { "" } else { &style.comma })?;
        if let Some(indent) = &style.indent {
            self.push("\n")?;
            self.indent(indent, level)?;
        }
        Ok(())
    }

    fn json_end(&mut self, style: &Json, level: u32, empty: bool, mark: &str) -> Result<(), Error> {
        if let Some(indent) = style.indent.as_ref().filter(|_| !empty) {
            self.push("\n")?;
            self.indent(indent, level)?;
        }
        self.push(mark)
    }

    fn indent(&mut self, (text, count): &(String, usize), level: u32) -> Result<(), Error> {
        if *count == 0 {
            return Ok(());
        }
        self.repeat(text, count.saturating_mul(level as usize))
    }

    fn json_string(&mut self, text: &str, ascii: bool) -> Result<(), Error> {
        self.push("\"")?;
        let mut plain = 0_usize;
        for (at, c) in text.char_indices() {
            let escape = match c {
                '"' => "\\\"".to_owned(),
                '\\' => "\\\\".to_owned(),
                '\n' => "\\n".to_owned(),
                '\r' => "\\r".to_owned(),
                '\t' => "\\t".to_owned(),
                '\u{8}' => "\\b".to_owned(),
                '\u{c}' => "\\f".to_owned(),
                c if c < ' ' => format!("\\u{:04x}", u32::from(c)),
                c if ascii && !c.is_ascii() => {
                    let mut units = [0_u16; 2];
                    c.encode_utf16(&mut units).iter().fold(String::new(), |mut out, unit| {
                        let _ = write!(out, "\\u{unit:04x}");
                        out
                    })
                }
                _ => continue,
            };
            self.push(text.get(plain..at).unwrap_or(""))?;
            self.push(&escape)?;
            plain = at.saturating_add(c.len_utf8());
        }
        self.push(text.get(plain..).unwrap_or(""))?;
        self.push("\"")
    }
}

/// How `json.dumps` writes.
pub(super) struct Json {
    pub ascii: bool,
    pub sorted: bool,
    pub comma: String,
    pub colon: String,
    /// The text of one step and how often it stands in a step.
    pub indent: Option<(String, usize)>,
}

/// `type(value).__name__`.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Undefined => "Undefined",
        ValueKind::None => "NoneType",
        ValueKind::Bool => "bool",
        ValueKind::Number if value.is_integer() => "int",
        ValueKind::Number => "float",
        ValueKind::String | ValueKind::Bytes => "str",
        ValueKind::Map if value.downcast_object_ref::<Namespace>().is_some() => "Namespace",
        ValueKind::Map => "dict",
        ValueKind::Seq | ValueKind::Iterable => match value.downcast_object_ref::<List>() {
            Some(list) => match list.shape {
                Shape::List => "list",
                Shape::Tuple => "tuple",
                Shape::View => "dict_items",
                Shape::Generator => "generator",
            },
            None if value.is_tuple() => "tuple",
            None => "list",
        },
        _ => "object",
    }
}

/// `repr` of a string.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::with_capacity(text.len().saturating_add(2));
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            c if printable(c) => out.push(c),
            c => {
                let code = u32::from(c);
                let _ = match code {
                    0..=0xff => write!(out, "\\x{code:02x}"),
                    0x100..=0xffff => write!(out, "\\u{code:04x}"),
                    _ => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(quote);
    out
}

/// `str.isprintable` of a character that is not ASCII, by the tables that Rust has.
/// (A combining character is escaped only at the start of a string, hence the letter before it.)
fn printable(c: char) -> bool {
    let mut buffer = [b'a'; 5];
    let text = buffer.get_mut(1..).map(|rest| c.encode_utf8(rest).len());
    let text = text.and_then(|bytes| buffer.get(..bytes.saturating_add(1)));
    let text = text.and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or("");
    !c.is_ascii() && text.escape_debug().count() == 2
}

fn number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    float(f64::try_from(value.clone()).unwrap_or(f64::NAN), ["inf", "-inf", "nan"])
}

fn json_number(value: &Value) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let value = f64::try_from(value.clone()).unwrap_or(f64::NAN);
    float(value, ["Infinity", "-Infinity", "NaN"])
}

/// `repr` of a float: the shortest digits that read back, with an exponent below -4 and from 16.
fn float(value: f64, [positive, negative, nan]: [&str; 3]) -> String {
    if value.is_nan() {
        return nan.to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { positive } else { negative }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        return format!("{value:?}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// `datetime.strftime` in the C locale; what it does not know stays as it is.
pub(super) fn strftime(clock: &Clock, format: &str) -> String {
    let day = DAYS.get(clock.weekday as usize).copied().unwrap_or("");
    let month = (clock.month as usize).checked_sub(1).and_then(|at| MONTHS.get(at));
    let month = month.copied().unwrap_or("");
    let short = |name: &str| name.chars().take(3).collect::<String>();
    let twelve = match clock.hour % 12 {
        0 => 12,
        hour => hour,
    };
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let Some(code) = chars.next() else {
            out.push('%');
            break;
        };
        let _ = match code {
            'Y' => write!(out, "{}", clock.year),
            'y' => write!(out, "{:02}", clock.year.rem_euclid(100)),
            'm' => write!(out, "{:02}", clock.month),
            'd' => write!(out, "{:02}", clock.day),
            'e' => write!(out, "{:2}", clock.day),
            'H' => write!(out, "{:02}", clock.hour),
            'I' => write!(out, "{twelve:02}"),
            'M' => write!(out, "{:02}", clock.minute),
            'S' => write!(out, "{:02}", clock.second),
            'j' => write!(out, "{:03}", clock.day_of_year),
            'p' => write!(out, "{}", if clock.hour < 12 { "AM" } else { "PM" }),
            'A' => write!(out, "{day}"),
            'a' => write!(out, "{}", short(day)),
            'B' => write!(out, "{month}"),
            'b' | 'h' => write!(out, "{}", short(month)),
            'w' => write!(out, "{}", clock.weekday),
            'F' => write!(out, "{}-{:02}-{:02}", clock.year, clock.month, clock.day),
            'T' => write!(out, "{:02}:{:02}:{:02}", clock.hour, clock.minute, clock.second),
            'f' => write!(out, "000000"),
            'z' | 'Z' => Ok(()),
            '%' => write!(out, "%"),
            other => write!(out, "%{other}"),
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_in_python() {
        let names = ["inf", "-inf", "nan"];
        let cases = [
            (1.0, "1.0"),
            (1e20, "1e+20"),
            (1e-7, "1e-07"),
            (0.1, "0.1"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (-0.0, "-0.0"),
            (0.0001, "0.0001"),
            (f64::INFINITY, "inf"),
        ];
        for (value, want) in cases {
            assert_eq!(float(value, names), want);
        }
    }

    #[test]
    fn strings_are_quoted_as_in_python() {
        let cases = [
            ("a'b", "\"a'b\""),
            ("a'\"b", "'a\\'\"b'"),
            ("\u{0}\n\u{7f}", "'\\x00\\n\\x7f'"),
            ("é\u{301}日", "'é\u{301}日'"),
            ("\u{a0}\u{200b}\u{e000}", "'\\xa0\\u200b\\ue000'"),
            ("\u{1f600}", "'\u{1f600}'"),
        ];
        for (text, want) in cases {
            assert_eq!(quoted(text), want);
        }
    }

    #[test]
    fn times_print_as_in_python() {
        let clock = Clock {
            year: 2026,
            month: 3,
            day: 5,
            hour: 14,
            minute: 7,
            second: 9,
            weekday: 4,
            day_of_year: 64,
        };
        let text =
            strftime(&clock, "%Y-%m-%d|%d %b %Y|%B %d, %Y|%A %a|%I:%M:%S %p|%H|%j|%y|100%%|%");
        assert_eq!(
            text,
            "2026-03-05|05 Mar 2026|March 05, 2026|Thursday Thu|02:07:09 PM|14|064|26|100%|%"
        );
    }
}
