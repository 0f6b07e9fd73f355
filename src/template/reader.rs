//! Reads the tokens of one tag, and what is written for them, line by line.

use super::source::{Refusal, Token};

/// Names that begin so belong to us; a template may not use them.
pub(super) const RESERVED: &str = "chord__";

/// An expression as written for minijinja.
pub(super) struct Written {
    pub text: String,
    /// Depth of the syntax tree that minijinja will build.
    pub depth: u32,
    /// A literal, which minijinja folds: it costs nothing at run time.
    pub literal: bool,
    /// A name or a path of names, for messages.
    pub path: bool,
    /// One call of ours: needs no parentheses.
    pub call: bool,
}

impl Written {
    /// What a message calls it.
    pub fn label(&self) -> &str {
        let text = self.text.trim_start();
        if self.path && !text.contains('\n') { text } else { "" }
    }
}

/// Reads the tokens of one tag.
pub(super) struct Reader<'a> {
    tokens: std::vec::IntoIter<(Token<'a>, u32)>,
    /// The line that the written text has reached.
    written_line: u32,
    last_line: u32,
    /// Brackets open around the expression that is read.
    pub nesting: u32,
    /// Lines and names of what attributes are taken of.
    pub bases: Vec<(u32, String)>,
}

impl<'a> Reader<'a> {
    /// A reader of the tokens of a tag that begins on that line.
    pub fn new(tokens: Vec<(Token<'a>, u32)>, line: u32, written_line: u32) -> Self {
        Reader {
            tokens: tokens.into_iter(),
            written_line,
            last_line: line,
            nesting: 0,
            bases: Vec::new(),
        }
    }

    /// The line that the written text has reached.
    pub fn written_line(&self) -> u32 {
        self.written_line
    }

    /// A refusal at the last token.
    pub fn refuse(&self, reason: impl Into<String>) -> Refusal {
        Refusal::new(self.last_line, reason)
    }

    /// The next token, left in place.
    pub fn peek(&self) -> Option<&Token<'a>> {
        self.tokens.as_slice().first().map(|(token, _)| token)
    }

    /// The next token.
    pub fn next(&mut self) -> Option<Token<'a>> {
        let (token, line) = self.tokens.next()?;
        self.last_line = line;
        Some(token)
    }

    /// Whether the next token is that symbol; takes it.
    pub fn symbol(&mut self, symbol: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Symbol(s)) if *s == symbol);
        if found {
            self.next();
        }
        found
    }

    /// Whether the next token is that word; takes it.
    pub fn word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some(Token::Name(name)) if *name == word);
        if found {
            self.next();
        }
        found
    }

    /// Demands a symbol.
    pub fn expect(&mut self, symbol: &str) -> Result<(), Refusal> {
        if self.symbol(symbol) { Ok(()) } else { Err(self.unexpected(symbol)) }
    }

    /// Demands the end of the tag.
    pub fn finish(&mut self) -> Result<(), Refusal> {
        if self.peek().is_none() { Ok(()) } else { Err(self.unexpected("the end of the tag")) }
    }

    /// A refusal of the next token.
    pub fn unexpected(&mut self, wanted: &str) -> Refusal {
        let got = match self.next() {
            None => "the end of the tag".to_owned(),
            Some(Token::Name(name)) => format!("'{name}'"),
            Some(Token::Symbol(symbol)) => format!("'{symbol}'"),
            Some(Token::Integer(text) | Token::Float(text)) => text.to_owned(),
            Some(Token::Text(_)) => "a string".to_owned(),
        };
        self.refuse(format!("syntax error: expected {wanted}, got {got}"))
    }

    /// Newlines that bring the written text to the line of the last token.
    pub fn catch_up(&mut self) -> String {
        let missing = self.last_line.saturating_sub(self.written_line);
        self.written_line = self.written_line.max(self.last_line);
        "\n".repeat(missing as usize)
    }

    /// A name that the template may use, written.
    pub fn name(&mut self) -> Result<String, Refusal> {
        match self.next() {
            Some(Token::Name(name)) if name.starts_with(RESERVED) => {
                Err(self.refuse(format!("names that begin with {RESERVED} are reserved")))
            }
            Some(Token::Name(name)) => Ok(format!("{}{name}", self.catch_up())),
            _ => Err(self.refuse("syntax error: expected a name")),
        }
    }
}

/// A string as a literal for minijinja; newlines stay newlines.
pub(super) fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
