//! Rewrites a chat template for minijinja, statement by statement and without recursion; why, says
//! the head of the part. Texts become printed strings, so that one formatter sees every byte, and
//! the nesting of statements is bounded here as that of expressions is in `expression.rs`, so
//! minijinja's parser and code generator never go deep.

use super::limits::SYNTAX_DEPTH_MAX;
use super::reader::{RESERVED, Reader, quote};
use super::source::{Piece, Refusal, Token, normalise, split};

/// The template for minijinja: same lines, none of its operators.
/// Also lines and names of what it takes attributes of.
pub(super) fn rewrite(source: &str) -> Result<(String, Vec<(u32, String)>), Refusal> {
    let source = normalise(source)?;
    let mut writer =
        Writer { out: String::new(), line: 1, open: Vec::new(), depth: 0, bases: Vec::new() };
    for piece in split(&source)? {
        match piece {
            Piece::Text { line, text } => writer.text(line, text),
            Piece::Print { line, tokens } => writer.print(line, tokens)?,
            Piece::Block { line, tokens } => writer.block(line, tokens)?,
        }
    }
    match writer.open.last() {
        Some(open) => {
            let reason = format!("'{}' is not closed", open.name);
            Err(Refusal::new(open.line, format!("syntax error: {reason}")))
        }
        None => Ok((writer.out, writer.bases)),
    }
}

/// A block that waits for its end.
struct Open {
    name: &'static str,
    line: u32,
    /// What is written at the end instead of `{% end... %}`.
    end: String,
    /// Levels that it adds to the syntax tree; grows with each `elif`.
    levels: u32,
}

struct Writer {
    out: String,
    /// The line that `out` has reached.
    line: u32,
    open: Vec<Open>,
    depth: u32,
    bases: Vec<(u32, String)>,
}

impl Writer {
    fn catch_up(&mut self, line: u32) {
        while self.line < line {
            self.out.push('\n');
            self.line = self.line.saturating_add(1);
        }
    }

    fn text(&mut self, line: u32, text: &str) {
        self.out.push_str("{{ ");
        self.catch_up(line);
        self.out.push_str(&quote(text));
        let newlines = text.bytes().filter(|&b| b == b'\n').count();
        self.line = self.line.saturating_add(u32::try_from(newlines).unwrap_or(u32::MAX));
        self.out.push_str(" }}");
    }

    fn print(&mut self, line: u32, tokens: Vec<(Token, u32)>) -> Result<(), Refusal> {
        let mut reader = Reader::new(tokens, line, self.line);
        let value = reader.tuple()?;
        reader.finish()?;
        self.line = reader.written_line();
        self.bases.append(&mut reader.bases);
        self.out.push_str("{{ ");
        self.out.push_str(&value.text);
        self.out.push_str(" }}");
        Ok(())
    }

    fn block(&mut self, line: u32, tokens: Vec<(Token, u32)>) -> Result<(), Refusal> {
        let mut reader = Reader::new(tokens, line, self.line);
        let Some(Token::Name(name)) = reader.next() else {
            return Err(reader.refuse("syntax error: a block begins with a name"));
        };
        let written = match name {
            "if" => self.begin("if", line, format!("if {}", reader.or()?.text))?,
            "elif" => self.elif(&mut reader)?,
            "else" if self.inside(&["if", "for"]) => "{% else %}".to_owned(),
            "for" => self.for_loop(line, &mut reader)?,
            "set" => self.set(line, &mut reader)?,
            "macro" => self.macro_block(line, &mut reader)?,
            "call" => self.call(line, &mut reader)?,
            "filter" => {
                let filter = filter_chain(&mut reader)?;
                self.begin("filter", line, format!("filter {filter}"))?
            }
            "with" => self.with(line, &mut reader)?,
            "generation" => self.begin("generation", line, String::new())?,
            "break" | "continue" if self.open.iter().any(|open| open.name == "for") => {
                format!("{{% {name} %}}")
            }
            _ => match name.strip_prefix("end") {
                Some(ended) if self.inside(&[ended]) => self.end(),
                _ => return Err(reader.refuse(format!("syntax error: unexpected '{name}'"))),
            },
        };
        reader.finish()?;
        self.line = reader.written_line();
        self.bases.append(&mut reader.bases);
        self.out.push_str(&written);
        Ok(())
    }

    fn inside(&self, names: &[&str]) -> bool {
        self.open.last().is_some_and(|open| names.contains(&open.name))
    }

    fn deepen(&mut self, line: u32) -> Result<(), Refusal> {
        self.depth = self.depth.saturating_add(1);
        if self.depth > SYNTAX_DEPTH_MAX {
            let reason = format!("blocks are nested more than {SYNTAX_DEPTH_MAX} deep");
            return Err(Refusal::new(line, reason));
        }
        Ok(())
    }

    fn begin(&mut self, name: &'static str, line: u32, written: String) -> Result<String, Refusal> {
        self.deepen(line)?;
        let transparent = written.is_empty();
        let end = if transparent { String::new() } else { format!("{{% end{name} %}}") };
        self.open.push(Open { name, line, end, levels: 1 });
        Ok(if transparent { written } else { format!("{{% {written} %}}") })
    }

    fn end(&mut self) -> String {
        let Some(open) = self.open.pop() else { return String::new() };
        self.depth = self.depth.saturating_sub(open.levels);
        open.end
    }

    fn elif(&mut self, reader: &mut Reader) -> Result<String, Refusal> {
        let refusal = reader.refuse("syntax error: unexpected 'elif'");
        let Some(open) = self.open.last_mut().filter(|open| open.name == "if") else {
            return Err(refusal);
        };
        open.levels = open.levels.saturating_add(1);
        let line = open.line;
        self.deepen(line)?;
        Ok(format!("{{% elif {} %}}", reader.or()?.text))
    }

    fn for_loop(&mut self, line: u32, reader: &mut Reader) -> Result<String, Refusal> {
        let targets = targets(reader, false)?;
        if !reader.word("in") {
            return Err(reader.refuse("syntax error: expected 'in'"));
        }
        let mut written = format!("for {} in {RESERVED}iterate(", list_of(&targets));
        written.push_str(&reader.iterated()?.text);
        written.push(')');
        if reader.word("if") {
            written.push_str(" if ");
            written.push_str(&reader.expression()?.text);
        }
        if reader.word("recursive") {
            written.push_str(" recursive");
        }
        self.begin("for", line, written)
    }

    fn set(&mut self, line: u32, reader: &mut Reader) -> Result<String, Refusal> {
        let targets = targets(reader, true)?;
        // Attributes are set by a function of ours, from a variable of ours.
        let mut after = String::new();
        let mut names = Vec::new();
        for (index, target) in targets.iter().enumerate() {
            match target.split_once('.') {
                Some((name, attribute)) => {
                    let temporary = format!("{RESERVED}set{index}");
                    let call = format!("{RESERVED}set({name}, \"{attribute}\", {temporary})");
                    after.push_str(&format!("{{% do {call} %}}"));
                    names.push(temporary);
                }
                None => names.push(target.clone()),
            }
        }
        if reader.symbol("=") {
            let value = reader.tuple()?;
            return Ok(format!("{{% set {} = {} %}}{after}", list_of(&names), value.text));
        }
        let filter = if reader.symbol("|") {
            format!(" | {}", filter_chain(reader)?)
        } else {
            String::new()
        };
        if names.len() != 1 {
            return Err(reader.refuse("syntax error: a set block has one target"));
        }
        let written = self.begin("set", line, format!("set {}{filter}", list_of(&names)))?;
        if let Some(open) = self.open.last_mut() {
            open.end.push_str(&after);
        }
        Ok(written)
    }

    fn macro_block(&mut self, line: u32, reader: &mut Reader) -> Result<String, Refusal> {
        let name = reader.name()?;
        reader.expect("(")?;
        let signature = signature(reader)?;
        self.begin("macro", line, format!("macro {name}({signature})"))
    }

    fn call(&mut self, line: u32, reader: &mut Reader) -> Result<String, Refusal> {
        let signature =
            if reader.symbol("(") { format!("({})", signature(reader)?) } else { String::new() };
        let value = reader.expression()?;
        self.begin("call", line, format!("call{signature} {}", value.text))
    }

    fn with(&mut self, line: u32, reader: &mut Reader) -> Result<String, Refusal> {
        let mut written = Vec::new();
        while reader.peek().is_some() {
            let name = reader.name()?;
            reader.expect("=")?;
            written.push(format!("{name} = {}", reader.expression()?.text));
            if !reader.symbol(",") {
                break;
            }
        }
        self.begin("with", line, format!("with {}", written.join(", ")))
    }
}

/// Names that a loop or `set` assigns to, also `(a, b)` and, for `set`, `ns.a`.
fn targets(reader: &mut Reader, dotted: bool) -> Result<Vec<String>, Refusal> {
    let bracketed = reader.symbol("(");
    let mut names = Vec::new();
    loop {
        let mut name = reader.name()?;
        if dotted && reader.symbol(".") {
            name = format!("{name}.{}", reader.name()?.trim_start());
        }
        names.push(name);
        if !reader.symbol(",") || matches!(reader.peek(), Some(Token::Name("in"))) {
            break;
        }
    }
    if bracketed {
        reader.expect(")")?;
    }
    Ok(names)
}

fn list_of(names: &[String]) -> String {
    names.join(", ")
}

fn filter_chain(reader: &mut Reader) -> Result<String, Refusal> {
    let mut chain = reader.filter_name()?.0;
    let mut count = 0_u32;
    while reader.symbol("|") {
        count = count.saturating_add(1);
        if count > SYNTAX_DEPTH_MAX {
            return Err(reader.refuse("too many filters"));
        }
        chain = format!("{chain}|{}", reader.filter_name()?.0);
    }
    Ok(chain)
}

/// The parameters of a macro, behind the opening parenthesis.
fn signature(reader: &mut Reader) -> Result<String, Refusal> {
    let mut parameters = Vec::new();
    while !reader.symbol(")") {
        let name = reader.name()?;
        parameters.push(if reader.symbol("=") {
            format!("{name}={}", reader.expression()?.text)
        } else {
            name
        });
        if !reader.symbol(",") {
            reader.expect(")")?;
            break;
        }
    }
    Ok(parameters.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_become_calls_and_lines_stay() {
        let cases = [
            (
                "{{ a + b * 2 - c }}",
                "{{ chord__sum(\"+ -|a||c\", a, chord__product(\"*|b|\", b, 2), c) }}",
            ),
            ("a\n{{ x\n.y }}", "{{ \"a\n\" }}{{ x\n.y }}"),
            ("{{ not not not a }}", "{{ not a }}"),
            ("{{ [1, 2] }}{{ [a] }}", "{{ [1, 2] }}{{ chord__list([a]) }}"),
            (
                "{{ m['k'][1:] }}",
                "{{ chord__slice(\"\", chord__item(\"m\", m, \"k\"), 1, none, none) }}",
            ),
            (
                "{% for x in y if x is defined %}{% endfor %}",
                "{% for x in chord__iterate(y) if x is defined %}{% endfor %}",
            ),
            (
                "{% set ns.a = 1 %}",
                "{% set chord__set0 = 1 %}{% do chord__set(ns, \"a\", chord__set0) %}",
            ),
            ("{% generation %}x{% endgeneration %}", "{{ \"x\" }}"),
        ];
        for (source, want) in cases {
            assert_eq!(rewrite(source).map(|written| written.0).as_deref(), Ok(want), "{source}");
        }
    }

    #[test]
    fn what_is_not_jinja_is_refused_with_its_line() {
        let cases = [
            ("a\n{% if %}", 2),
            ("{% for x in y %}\n", 1),
            ("\n\n{{ (a }}", 3),
            ("{{ chord__sum(1) }}", 1),
            ("{% include 'x' %}", 1),
            ("{% endif %}", 1),
            ("{% break %}", 1),
            ("{{ a..b }}", 1),
        ];
        for (source, line) in cases {
            assert_eq!(
                rewrite(source).map(|_| 0).map_err(|refusal| refusal.line),
                Err(line),
                "{source}"
            );
        }
    }
}
