//! Reads jinja2 expressions and writes them for minijinja with every operator, subscript and
//! container turned into a call of a function of ours (`operators.rs`). Keeps lines where they
//! were. Source of the grammar: jinja2 3.1 `parser.py`.

use super::limits::SYNTAX_DEPTH_MAX;
use super::reader::{RESERVED, Reader, Written, quote};
use super::source::{Refusal, Token};

/// Most operands of one chain, arguments of one call (minijinja allows 2,000).
const OPERANDS_MAX: usize = 1000;
/// Longest name that a message about something undefined gives.
const NAME_BYTES_MAX: usize = 100;
/// Deepest nesting of brackets. minijinja's own limit is about 70.
const NESTING_MAX: u32 = 60;

impl Reader<'_> {
    fn node(&self, text: String, depth: u32) -> Result<Written, Refusal> {
        let depth = depth.saturating_add(1);
        if depth > SYNTAX_DEPTH_MAX {
            let reason = format!("an expression is nested more than {SYNTAX_DEPTH_MAX} deep");
            return Err(self.refuse(reason));
        }
        Ok(Written { text, depth, literal: false, path: false, call: false })
    }

    /// An expression, or a tuple without parentheses.
    pub fn tuple(&mut self) -> Result<Written, Refusal> {
        let first = self.expression()?;
        self.tuple_after(first)
    }

    /// What a loop runs over: no condition of its own, that belongs to the loop.
    pub fn iterated(&mut self) -> Result<Written, Refusal> {
        let first = self.or()?;
        self.tuple_after(first)
    }

    fn tuple_after(&mut self, first: Written) -> Result<Written, Refusal> {
        if !self.symbol(",") {
            return Ok(first);
        }
        let mut items = vec![first];
        while self.peek().is_some() && !matches!(self.peek(), Some(Token::Symbol(")"))) {
            items.push(self.expression()?);
            if !self.symbol(",") {
                break;
            }
        }
        self.call("tuple", "", items)
    }

    /// An expression.
    pub fn expression(&mut self) -> Result<Written, Refusal> {
        self.nesting = self.nesting.saturating_add(1);
        if self.nesting > NESTING_MAX {
            let reason = format!("brackets are nested more than {NESTING_MAX} deep");
            return Err(self.refuse(reason));
        }
        let mut value = self.or()?;
        while self.word("if") {
            let test = self.or()?;
            let depth = value.depth.max(test.depth);
            let text = format!("{} if {}", value.text, test.text);
            value = if self.word("else") {
                let other = self.expression()?;
                self.node(format!("{text} else {}", other.text), depth.max(other.depth))?
            } else {
                self.node(text, depth)?
            };
        }
        self.nesting = self.nesting.saturating_sub(1);
        Ok(value)
    }

    /// A condition without `if`.
    pub fn or(&mut self) -> Result<Written, Refusal> {
        let mut left = self.and()?;
        while self.word("or") {
            let right = self.and()?;
            let depth = left.depth.max(right.depth);
            left = self.node(format!("{} or {}", left.text, right.text), depth)?;
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Written, Refusal> {
        let mut left = self.not()?;
        while self.word("and") {
            let right = self.not()?;
            let depth = left.depth.max(right.depth);
            left = self.node(format!("{} and {}", left.text, right.text), depth)?;
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Written, Refusal> {
        let mut count = 0_u32;
        while self.word("not") {
            count = count.saturating_add(1);
        }
        let value = self.compare()?;
        if count == 0 {
            return Ok(value);
        }
        // An even number of nots is two: only the truth of the value is left of it.
        let nots = if count.is_multiple_of(2) { "not not " } else { "not " };
        self.node(format!("{nots}{}", value.text), value.depth.saturating_add(1))
    }

    fn compare(&mut self) -> Result<Written, Refusal> {
        let mut operands = vec![self.sum()?];
        let mut marks = Vec::new();
        loop {
            let mark = match self.peek() {
                Some(Token::Symbol(s @ ("==" | "!=" | "<" | "<=" | ">" | ">="))) => *s,
                Some(Token::Name("in")) => "in",
                Some(Token::Name("not")) => "notin",
                _ => break,
            };
            self.next();
            if mark == "notin" && !self.word("in") {
                return Err(self.unexpected("'in'"));
            }
            marks.push(mark);
            operands.push(self.sum()?);
        }
        self.chain("compare", marks, operands)
    }

    fn sum(&mut self) -> Result<Written, Refusal> {
        self.level(&["+", "-"], "sum", Self::concat)
    }

    fn concat(&mut self) -> Result<Written, Refusal> {
        self.level(&["~"], "concat", Self::product)
    }

    fn product(&mut self) -> Result<Written, Refusal> {
        self.level(&["*", "/", "//", "%"], "product", Self::power)
    }

    fn power(&mut self) -> Result<Written, Refusal> {
        self.level(&["**"], "power", Self::filtered)
    }

    fn level(
        &mut self,
        symbols: &[&'static str],
        name: &str,
        below: fn(&mut Self) -> Result<Written, Refusal>,
    ) -> Result<Written, Refusal> {
        let mut operands = vec![below(self)?];
        let mut marks = Vec::new();
        while let Some(mark) = symbols.iter().find(|symbol| self.symbol(symbol)) {
            marks.push(*mark);
            operands.push(below(self)?);
        }
        self.chain(name, marks, operands)
    }

    /// One call for a whole chain of operators of one level, from left to right.
    fn chain(
        &self,
        name: &str,
        marks: Vec<&str>,
        mut operands: Vec<Written>,
    ) -> Result<Written, Refusal> {
        if marks.is_empty() {
            return operands.pop().ok_or_else(|| self.refuse("an expression is missing"));
        }
        // The first argument names the operators, and the operands where they have a name.
        let mut label = marks.join(" ");
        for operand in &operands {
            label.push('|');
            label.push_str(operand.label());
        }
        self.call(name, &format!("\"{label}\", "), operands)
    }

    fn call(&self, name: &str, first: &str, items: Vec<Written>) -> Result<Written, Refusal> {
        if items.len() > OPERANDS_MAX {
            return Err(self.refuse(format!("more than {OPERANDS_MAX} operands in one expression")));
        }
        let depth = items.iter().map(|item| item.depth).max().unwrap_or(0);
        let texts: Vec<String> = items.into_iter().map(|item| item.text).collect();
        let text = format!("{RESERVED}{name}({first}{})", texts.join(", "));
        Ok(Written { call: true, ..self.node(text, depth)? })
    }

    fn filtered(&mut self) -> Result<Written, Refusal> {
        let value = self.signed()?;
        self.filters(value)
    }

    fn signed(&mut self) -> Result<Written, Refusal> {
        let (mut minus, mut signs) = (0_u32, false);
        loop {
            if self.symbol("-") {
                minus = minus.saturating_add(1);
            } else if !self.symbol("+") {
                break;
            }
            signs = true;
        }
        let value = self.primary()?;
        let value = self.postfix(value)?;
        if !signs {
            return Ok(value);
        }
        let literal = value.literal;
        let minuses = if minus.is_multiple_of(2) { "- -" } else { "-" };
        let node = self.node(format!("{minuses}{}", value.text), value.depth.saturating_add(1))?;
        Ok(Written { literal, ..node })
    }

    fn primary(&mut self) -> Result<Written, Refusal> {
        let token =
            self.next().ok_or_else(|| self.refuse("syntax error: an expression is missing"))?;
        let (text, literal, path) = match token {
            Token::Name(name) => match name {
                "true" | "True" => ("true".to_owned(), true, false),
                "false" | "False" => ("false".to_owned(), true, false),
                "none" | "None" => ("none".to_owned(), true, false),
                _ if name.starts_with(RESERVED) => {
                    return Err(
                        self.refuse(format!("names that begin with {RESERVED} are reserved"))
                    );
                }
                "if" | "else" | "and" | "or" | "not" | "in" | "is" => {
                    return Err(self.refuse(format!("syntax error: unexpected '{name}'")));
                }
                _ => (name.to_owned(), false, true),
            },
            Token::Text(mut text) => {
                while let Some(Token::Text(more)) = self.peek() {
                    text.push_str(more);
                    self.next();
                }
                let text = self.quoted(&text);
                return Ok(Written { text, depth: 1, literal: true, path: false, call: false });
            }
            Token::Integer(text) | Token::Float(text) => (text.to_owned(), true, false),
            Token::Symbol("(") => return self.parenthesised(),
            Token::Symbol("[") => return self.list(),
            Token::Symbol("{") => return self.map(),
            Token::Symbol(symbol) => {
                return Err(self.refuse(format!("syntax error: unexpected '{symbol}'")));
            }
        };
        let text = format!("{}{text}", self.catch_up());
        Ok(Written { text, depth: 1, literal, path, call: false })
    }

    /// A string as a literal that minijinja reads back unchanged, on the line it stood on.
    fn quoted(&mut self, text: &str) -> String {
        format!("{}{}", self.catch_up(), quote(text).replace('\n', "\\n"))
    }

    fn parenthesised(&mut self) -> Result<Written, Refusal> {
        if self.symbol(")") {
            return self.call("tuple", "", Vec::new());
        }
        let value = self.tuple()?;
        self.expect(")")?;
        if value.call {
            return Ok(value);
        }
        Ok(Written { text: format!("({})", value.text), path: false, ..value })
    }

    fn list(&mut self) -> Result<Written, Refusal> {
        let mut items = Vec::new();
        while !self.symbol("]") {
            items.push(self.expression()?);
            if !self.symbol(",") {
                self.expect("]")?;
                break;
            }
        }
        let literal = items.iter().all(|item| item.literal);
        let depth = items.iter().map(|item| item.depth).max().unwrap_or(0);
        let texts: Vec<String> = items.into_iter().map(|item| item.text).collect();
        self.container("list", format!("[{}]", texts.join(", ")), depth, literal)
    }

    fn map(&mut self) -> Result<Written, Refusal> {
        let (mut texts, mut depth, mut literal) = (Vec::new(), 0, true);
        while !self.symbol("}") {
            let key = self.expression()?;
            self.expect(":")?;
            let value = self.expression()?;
            depth = depth.max(key.depth).max(value.depth);
            literal = literal && key.literal && value.literal;
            texts.push(format!("{}: {}", key.text, value.text));
            if !self.symbol(",") {
                self.expect("}")?;
                break;
            }
        }
        // The space keeps `{{` and `}}` apart.
        self.container("map", format!("{{ {} }}", texts.join(", ")), depth, literal)
    }

    fn container(
        &self,
        name: &str,
        text: String,
        depth: u32,
        literal: bool,
    ) -> Result<Written, Refusal> {
        if literal {
            return Ok(Written { literal, ..self.node(text, depth)? });
        }
        self.node(format!("{RESERVED}{name}({text})"), depth.saturating_add(1))
    }

    fn postfix(&mut self, mut value: Written) -> Result<Written, Refusal> {
        loop {
            if self.symbol(".") {
                value = self.attribute(value)?;
            } else if self.symbol("[") {
                value = self.subscript(value)?;
            } else if self.symbol("(") {
                value = self.called(value)?;
            } else {
                return Ok(value);
            }
        }
    }

    fn attribute(&mut self, value: Written) -> Result<Written, Refusal> {
        let path = value.path;
        if path && value.text.len() <= NAME_BYTES_MAX {
            self.bases.push((self.written_line(), value.text.trim().to_owned()));
        }
        match self.next() {
            Some(Token::Name(name)) => {
                let text = format!("{}{}.{name}", value.text, self.catch_up());
                Ok(Written { path, ..self.node(text, value.depth)? })
            }
            Some(Token::Integer(index)) => {
                let text = format!("{RESERVED}item(\"\", {}, {index})", value.text);
                self.node(text, value.depth)
            }
            _ => Err(self.refuse("syntax error: expected a name after '.'")),
        }
    }

    fn subscript(&mut self, value: Written) -> Result<Written, Refusal> {
        let mut parts: Vec<Option<Written>> = Vec::new();
        loop {
            let ends = matches!(self.peek(), Some(Token::Symbol(":" | "]")));
            parts.push(if ends { None } else { Some(self.expression()?) });
            if !self.symbol(":") {
                break;
            }
        }
        self.expect("]")?;
        let (name, count) = match parts.len() {
            1 => ("item", 1),
            2 | 3 => ("slice", 3),
            _ => return Err(self.refuse("syntax error: a slice has at most three parts")),
        };
        let label = value.label();
        let mut text = format!("{RESERVED}{name}(\"{label}\", {}", value.text);
        let mut depth = value.depth;
        parts.resize_with(count, || None);
        for part in parts {
            match part {
                Some(part) => {
                    depth = depth.max(part.depth);
                    text.push_str(", ");
                    text.push_str(&part.text);
                }
                None if name == "item" => return Err(self.refuse("syntax error: empty subscript")),
                None => text.push_str(", none"),
            }
        }
        text.push(')');
        self.node(text, depth)
    }

    /// The arguments of a call, behind the opening parenthesis.
    fn called(&mut self, value: Written) -> Result<Written, Refusal> {
        // `loop.changed` compares values behind our back; `loop(items)` walks them.
        let name = value.text.trim_start();
        if name.ends_with(".changed") {
            return Err(self.refuse("loop.changed is not supported"));
        }
        if name.ends_with(".cycle") && matches!(self.peek(), Some(Token::Symbol(")" | "*"))) {
            return Err(self.refuse("loop.cycle takes one item or more"));
        }
        let recursion = name == "loop";
        let (args, depth) = self.arguments(recursion)?;
        self.node(format!("{}({args})", value.text), value.depth.max(depth))
    }

    /// Arguments up to and with the closing parenthesis.
    pub fn arguments(&mut self, iterated: bool) -> Result<(String, u32), Refusal> {
        let (mut texts, mut depth) = (Vec::new(), 0_u32);
        while !self.symbol(")") {
            let spread = if self.symbol("**") {
                "**"
            } else if self.symbol("*") {
                "*"
            } else {
                ""
            };
            let value = self.expression()?;
            depth = depth.max(value.depth);
            if spread.is_empty() && value.path && self.symbol("=") {
                let given = self.expression()?;
                depth = depth.max(given.depth);
                texts.push(format!("{}={}", value.text, given.text));
            } else if spread.is_empty() && !iterated {
                texts.push(value.text);
            } else {
                let function = if spread == "**" { "spread" } else { "iterate" };
                texts.push(format!("{spread}{RESERVED}{function}({})", value.text));
            }
            if !self.symbol(",") {
                self.expect(")")?;
                break;
            }
        }
        if texts.len() > OPERANDS_MAX {
            return Err(self.refuse(format!("more than {OPERANDS_MAX} arguments in one call")));
        }
        Ok((texts.join(", "), depth.saturating_add(1)))
    }

    fn filters(&mut self, mut value: Written) -> Result<Written, Refusal> {
        loop {
            if self.symbol("|") {
                let (text, depth) = self.filter_name()?;
                value = self.node(format!("{}|{text}", value.text), value.depth.max(depth))?;
            } else if self.word("is") {
                value = self.test(value)?;
            } else if self.symbol("(") {
                let (args, depth) = self.arguments(false)?;
                value = self.node(format!("({})({args})", value.text), value.depth.max(depth))?;
            } else {
                return Ok(value);
            }
        }
    }

    /// A filter with its arguments.
    pub fn filter_name(&mut self) -> Result<(String, u32), Refusal> {
        let mut name = self.name()?;
        while self.symbol(".") {
            name = format!("{name}.{}", self.name()?);
        }
        if self.symbol("(") {
            let (args, depth) = self.arguments(false)?;
            return Ok((format!("{name}({args})"), depth));
        }
        Ok((name, 0))
    }

    fn test(&mut self, value: Written) -> Result<Written, Refusal> {
        let not = if self.word("not") { "not " } else { "" };
        let name = self.name()?;
        let (text, depth) = if self.symbol("(") {
            let (args, depth) = self.arguments(false)?;
            (format!("{name}({args})"), depth)
        } else if self.test_has_operand() {
            let operand = self.primary()?;
            let operand = self.postfix(operand)?;
            (format!("{name}({})", operand.text), operand.depth)
        } else {
            (name, 0)
        };
        self.node(
            format!("{} is {not}{text}", value.text),
            value.depth.max(depth).saturating_add(1),
        )
    }

    fn test_has_operand(&self) -> bool {
        match self.peek() {
            Some(Token::Name(name)) => {
                !matches!(*name, "else" | "or" | "and" | "is" | "if" | "not" | "in" | "recursive")
            }
            Some(Token::Text(_) | Token::Integer(_) | Token::Float(_)) => true,
            Some(Token::Symbol(symbol)) => matches!(*symbol, "[" | "{"),
            None => false,
        }
    }
}
