//! Splits a template into texts and tags, and tags into tokens, by the rules of jinja2's lexer with
//! `trim_blocks` and `lstrip_blocks` on. Knows no grammar. Source: jinja2 3.1 `lexer.py`.

use super::limits::{SOURCE_BYTES_MAX, TOKENS_MAX};

/// A failure while reading the source: line and reason.
#[derive(Debug, PartialEq)]
pub(super) struct Refusal {
    pub line: u32,
    pub reason: String,
}

impl Refusal {
    pub fn new(line: u32, reason: impl Into<String>) -> Self {
        Refusal { line, reason: reason.into() }
    }
}

/// What a tag is made of.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token<'a> {
    Name(&'a str),
    Text(String),
    Integer(&'a str),
    Float(&'a str),
    Symbol(&'static str),
}

/// One tag or one stretch of text, with the line on which it begins.
#[derive(Debug, PartialEq)]
pub(super) enum Piece<'a> {
    Text { line: u32, text: &'a str },
    Print { line: u32, tokens: Vec<(Token<'a>, u32)> },
    Block { line: u32, tokens: Vec<(Token<'a>, u32)> },
}

/// `\r\n` and `\r` become `\n`, and one newline at the end is dropped, as jinja2 does.
pub(super) fn normalise(source: &str) -> Result<String, Refusal> {
    if source.len() > SOURCE_BYTES_MAX {
        let (got, max) = (source.len(), SOURCE_BYTES_MAX);
        return Err(Refusal::new(1, format!("the template has {got} bytes, more than {max}")));
    }
    let mut text = source.replace("\r\n", "\n").replace('\r', "\n");
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// Splits normalised source into pieces.
pub(super) fn split(source: &str) -> Result<Vec<Piece<'_>>, Refusal> {
    let mut lexer = Lexer { rest: source, line: 1, line_starting: true, tokens: 0 };
    let mut pieces = Vec::new();
    while lexer.piece(&mut pieces)? {}
    Ok(pieces)
}

const SYMBOLS: [&str; 27] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}",
    ">", "<", "=", ".", ":", "|", ",", ";", "!",
];

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Print,
    Block,
    Comment,
}

struct Lexer<'a> {
    rest: &'a str,
    line: u32,
    /// Whether what was read last ended with a newline.
    line_starting: bool,
    tokens: usize,
}

impl<'a> Lexer<'a> {
    /// Consumes `bytes` of the rest; the caller found them, so they exist.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.rest = rest;
        let newlines = taken.bytes().filter(|&b| b == b'\n').count();
        self.line = self.line.saturating_add(u32::try_from(newlines).unwrap_or(u32::MAX));
        if let Some(last) = taken.bytes().last() {
            self.line_starting = last == b'\n';
        }
        taken
    }

    fn skip_space(&mut self) {
        let space = self.rest.len().saturating_sub(self.rest.trim_start().len());
        self.take(space);
    }

    fn piece(&mut self, pieces: &mut Vec<Piece<'a>>) -> Result<bool, Refusal> {
        let Some((start, kind)) = find_tag(self.rest) else {
            let line = self.line;
            let text = self.take(self.rest.len());
            push_text(pieces, line, text);
            return Ok(false);
        };
        let (line, at_line_start) = (self.line, self.line_starting);
        let text = self.take(start);
        let sign = self.rest.as_bytes().get(2).copied().filter(|b| matches!(b, b'-' | b'+'));
        push_text(pieces, line, strip_before(text, kind, sign, at_line_start));
        let line = self.line;
        self.take(if sign.is_some() { 3 } else { 2 });
        match kind {
            Kind::Comment => self.comment(line)?,
            Kind::Print => {
                let tokens = self.tag("}}")?;
                pieces.push(Piece::Print { line, tokens });
            }
            Kind::Block if self.raw_begins() => self.raw(line, pieces)?,
            Kind::Block => {
                let tokens = self.tag("%}")?;
                pieces.push(Piece::Block { line, tokens });
            }
        }
        Ok(true)
    }

    fn comment(&mut self, line: u32) -> Result<(), Refusal> {
        let Some(end) = self.rest.find("#}") else {
            return Err(Refusal::new(line, "a comment is not closed"));
        };
        let sign = self.take(end).bytes().last();
        self.take(2);
        self.after_block(sign.filter(|b| matches!(b, b'-' | b'+')));
        Ok(())
    }

    /// What `%}` does to the text behind it: `-` eats white space, `+` nothing, else one newline.
    fn after_block(&mut self, sign: Option<u8>) {
        match sign {
            Some(b'-') => self.skip_space(),
            None if self.rest.starts_with('\n') => {
                self.take(1);
            }
            _ => {}
        }
    }

    fn raw_begins(&mut self) -> bool {
        let Some(body) = self.rest.trim_start().strip_prefix("raw") else { return false };
        let body = body.trim_start();
        let (body, dash) = match body.strip_prefix("-%}") {
            Some(body) => (body, true),
            None => match body.strip_prefix("%}") {
                Some(body) => (body, false),
                None => return false,
            },
        };
        self.take(self.rest.len().saturating_sub(body.len()));
        if dash {
            self.skip_space();
        }
        true
    }

    fn raw(&mut self, line: u32, pieces: &mut Vec<Piece<'a>>) -> Result<(), Refusal> {
        let at_line_start = self.line_starting;
        let mut from = 0_usize;
        loop {
            let found = self.rest.get(from..).and_then(|rest| rest.find("{%"));
            let Some(start) = found.and_then(|at| at.checked_add(from)) else {
                return Err(Refusal::new(line, "a raw block is not closed"));
            };
            let tag = self.rest.get(start..).unwrap_or("");
            if let Some((bytes, before, after)) = raw_end(tag) {
                let text_line = self.line;
                let text = self.take(start);
                let text = strip_before(text, Kind::Block, before, at_line_start);
                push_text(pieces, text_line, text);
                self.take(bytes);
                self.after_block(after);
                return Ok(());
            }
            from = start.saturating_add(2);
        }
    }

    /// Tokens up to and with the closing mark.
    fn tag(&mut self, close: &'static str) -> Result<Vec<(Token<'a>, u32)>, Refusal> {
        let begin = self.line;
        let mut tokens = Vec::new();
        let mut open: Vec<&'static str> = Vec::new();
        loop {
            self.skip_space();
            if self.rest.is_empty() {
                return Err(Refusal::new(begin, "unexpected end of the template inside a tag"));
            }
            if open.is_empty() && self.tag_ends(close) {
                return Ok(tokens);
            }
            let line = self.line;
            let token = self.token()?;
            if let Token::Symbol(symbol) = token {
                match symbol {
                    "(" | "[" | "{" => open.push(symbol),
                    ")" | "]" | "}" => {
                        let wanted = match symbol {
                            ")" => "(",
                            "]" => "[",
                            _ => "{",
                        };
                        if open.pop() != Some(wanted) {
                            return Err(Refusal::new(line, format!("unexpected '{symbol}'")));
                        }
                    }
                    _ => {}
                }
            }
            self.tokens = self.tokens.saturating_add(1);
            if self.tokens > TOKENS_MAX {
                let reason = format!("the template has more than {TOKENS_MAX} tokens");
                return Err(Refusal::new(line, reason));
            }
            tokens.push((token, line));
        }
    }

    fn tag_ends(&mut self, close: &'static str) -> bool {
        let rest = self.rest;
        if rest.starts_with(close) {
            self.take(2);
            if close == "%}" {
                self.after_block(None);
            }
        } else if rest.strip_prefix('-').is_some_and(|rest| rest.starts_with(close)) {
            self.take(3);
            self.skip_space();
        } else if close == "%}" && rest.starts_with("+%}") {
            self.take(3);
        } else {
            return false;
        }
        true
    }

    fn token(&mut self) -> Result<Token<'a>, Refusal> {
        let rest = self.rest;
        let first = rest.chars().next().unwrap_or(' ');
        if first.is_ascii_digit() {
            let (bytes, float) = number_length(rest);
            let text = self.take(bytes);
            return Ok(if float { Token::Float(text) } else { Token::Integer(text) });
        }
        if first == '_' || first.is_alphabetic() {
            let end = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
            return Ok(Token::Name(self.take(end)));
        }
        if first == '"' || first == '\'' {
            return self.string(first);
        }
        match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            Some(symbol) => {
                self.take(symbol.len());
                Ok(Token::Symbol(symbol))
            }
            None => Err(Refusal::new(self.line, format!("unexpected character {first:?}"))),
        }
    }

    fn string(&mut self, quote: char) -> Result<Token<'a>, Refusal> {
        let line = self.line;
        let mut escaped = false;
        let body = self.rest.get(1..).unwrap_or("");
        let end = body.find(|c: char| {
            let ends = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let Some(end) = end else {
            return Err(Refusal::new(line, "a string is not closed"));
        };
        let text = unescape(body.get(..end).unwrap_or(""))
            .ok_or_else(|| Refusal::new(line, "a string has a malformed escape"))?;
        self.take(end.saturating_add(2));
        Ok(Token::Text(text))
    }
}

fn find_tag(text: &str) -> Option<(usize, Kind)> {
    text.match_indices('{').find_map(|(at, _)| {
        let kind = match text.as_bytes().get(at.checked_add(1)?)? {
            b'{' => Kind::Print,
            b'%' => Kind::Block,
            b'#' => Kind::Comment,
            _ => return None,
        };
        Some((at, kind))
    })
}

fn push_text<'a>(pieces: &mut Vec<Piece<'a>>, line: u32, text: &'a str) {
    if !text.is_empty() {
        pieces.push(Piece::Text { line, text });
    }
}

/// `-` strips all white space before a tag; a block alone on its line loses its indentation.
fn strip_before(text: &str, kind: Kind, sign: Option<u8>, at_line_start: bool) -> &str {
    match sign {
        Some(b'-') => text.trim_end(),
        None if kind != Kind::Print => {
            let (cut, starts) = match text.rfind('\n') {
                Some(at) => (at.saturating_add(1), true),
                None => (0, at_line_start),
            };
            match text.split_at_checked(cut) {
                Some((kept, indent)) if starts && indent.trim_start().is_empty() => kept,
                _ => text,
            }
        }
        _ => text,
    }
}

/// Length of an `{% endraw %}` at the start of `tag`, with the signs before and after.
fn raw_end(tag: &str) -> Option<(usize, Option<u8>, Option<u8>)> {
    let sign = |text: &str| text.bytes().next().filter(|b| matches!(b, b'-' | b'+'));
    let rest = tag.strip_prefix("{%")?;
    let before = sign(rest);
    let rest = if before.is_some() { rest.get(1..)? } else { rest };
    let rest = rest.trim_start().strip_prefix("endraw")?.trim_start();
    let after = sign(rest);
    let rest = if after.is_some() { rest.get(1..)? } else { rest };
    let rest = rest.strip_prefix("%}")?;
    Some((tag.len().checked_sub(rest.len())?, before, after))
}

/// Bytes of the number at the start, and whether it is a float.
fn number_length(text: &str) -> (usize, bool) {
    let run = |from: usize, hex: bool| -> usize {
        let digits = text.bytes().skip(from);
        let digit = |b: &u8| b.is_ascii_digit() || *b == b'_' || hex && b.is_ascii_hexdigit();
        from.saturating_add(digits.take_while(digit).count())
    };
    let at = |index: usize| text.as_bytes().get(index).copied().unwrap_or(0);
    if at(0) == b'0' && matches!(at(1), b'x' | b'X' | b'b' | b'B' | b'o' | b'O') {
        return (run(2, true), false);
    }
    let whole = run(0, false);
    let mut end = whole;
    let fraction = whole.saturating_add(1);
    if at(whole) == b'.' && at(fraction).is_ascii_digit() {
        end = run(fraction, false);
    }
    if matches!(at(end), b'e' | b'E') {
        let mut digits = end.saturating_add(1);
        if matches!(at(digits), b'+' | b'-') {
            digits = digits.saturating_add(1);
        }
        if at(digits).is_ascii_digit() {
            end = run(digits, false);
        }
    }
    (end, end > whole)
}

/// Python's string escapes; an unknown one stays as it is, a broken number is refused.
fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let code = chars.next()?;
        match code {
            '\n' => {}
            '\\' | '\'' | '"' => out.push(code),
            'a' => out.push('\u{7}'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\u{b}'),
            'x' => out.push(hex(&mut chars, 2)?),
            'u' => out.push(hex(&mut chars, 4)?),
            'U' => out.push(hex(&mut chars, 8)?),
            '0'..='7' => {
                let mut value = code.to_digit(8)?;
                for _ in 0..2 {
                    let Some(digit) = chars.peek().and_then(|c| c.to_digit(8)) else { break };
                    chars.next();
                    value = value.checked_mul(8)?.checked_add(digit)?;
                }
                out.push(char::from_u32(value)?);
            }
            _ => out.extend(['\\', code]),
        }
    }
    Some(out)
}

fn hex(chars: &mut impl Iterator<Item = char>, digits: usize) -> Option<char> {
    let mut value = 0_u32;
    for _ in 0..digits {
        value = value.checked_mul(16)?.checked_add(chars.next()?.to_digit(16)?)?;
    }
    char::from_u32(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<&str> {
        let pieces = split(source).unwrap_or_default();
        pieces
            .iter()
            .filter_map(|p| if let Piece::Text { text, .. } = p { Some(*text) } else { None })
            .collect()
    }

    #[test]
    fn blocks_on_lines_of_their_own_leave_nothing() {
        assert_eq!(texts("a\n  {% if x %}\nb\n  {% endif %}\nc"), ["a\n", "b\n", "c"]);
        assert_eq!(texts("a {%- if x -%} b {%+ endif +%}\nc"), ["a", "b ", "\nc"]);
        assert_eq!(texts("  {{ a }}\n{# c #}\nd"), ["  ", "\n", "d"]);
        assert_eq!(texts("a{% raw %} {{ {% x {% endraw %}\nb"), ["a", " {{ {% x ", "b"]);
    }

    #[test]
    fn lines_are_counted_through_everything() {
        let source = normalise("a\r\n{#\r\n#}\n{{ 'x\ny' }}{% if\nz %}").unwrap_or_default();
        let lines: Vec<u32> = split(&source)
            .unwrap_or_default()
            .iter()
            .map(|piece| match piece {
                Piece::Text { line, .. }
                | Piece::Print { line, .. }
                | Piece::Block { line, .. } => *line,
            })
            .collect();
        assert_eq!(lines, [1, 4, 5]);
    }

    #[test]
    fn strings_unescape_as_in_python() {
        assert_eq!(unescape(r"a\n\x41\u00e9\'\q\101").as_deref(), Some("a\nA\u{e9}'\\qA"));
        assert_eq!(unescape(r"\u12"), None);
        assert_eq!(unescape(r"\ud800"), None);
    }

    #[test]
    fn numbers_end_where_python_ends_them() {
        for (text, want) in [
            ("12.5e3x", (6, true)),
            ("1.x", (1, false)),
            ("0xffz", (4, false)),
            ("1_000", (5, false)),
            ("3e", (1, false)),
        ] {
            assert_eq!(number_length(text), want, "{text}");
        }
    }
}
