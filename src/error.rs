//! The one error type and the one list of codes. Parts may have enums of their own that convert
//! into it once; whoever creates an error says what, where, what was expected, and what to do.

use std::fmt;

/// Result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! codes {
    ($($variant:ident => $text:literal,)*) => {
        /// Codes as JavaScript sees them; `index.d.ts` says what each carries.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code { $(#[doc = $text] $variant,)* }

        impl Code {
            /// Every code, in the order of the contract.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// The text that JavaScript compares with, such as `ERR_NOT_GGUF`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $text,)* }
            }
        }
    };
}

codes! {
    InvalidArg => "ERR_INVALID_ARG",
    UnknownOption => "ERR_UNKNOWN_OPTION",
    FileNotFound => "ERR_FILE_NOT_FOUND",
    FileUnreadable => "ERR_FILE_UNREADABLE",
    NotGguf => "ERR_NOT_GGUF",
    GgufVersion => "ERR_GGUF_VERSION",
    GgufCorrupt => "ERR_GGUF_CORRUPT",
    ModelInvalid => "ERR_MODEL_INVALID",
    TokenizerInvalid => "ERR_TOKENIZER_INVALID",
    UnsupportedArchitecture => "ERR_UNSUPPORTED_ARCHITECTURE",
    UnsupportedTensorType => "ERR_UNSUPPORTED_TENSOR_TYPE",
    Unsupported => "ERR_UNSUPPORTED",
    InsufficientMemory => "ERR_INSUFFICIENT_MEMORY",
    Device => "ERR_DEVICE",
    Io => "ERR_IO",
    FileChanged => "ERR_FILE_CHANGED",
    ContextOverflow => "ERR_CONTEXT_OVERFLOW",
    QueueFull => "ERR_QUEUE_FULL",
    SessionBusy => "ERR_SESSION_BUSY",
    Closed => "ERR_CLOSED",
    Template => "ERR_TEMPLATE",
    Numeric => "ERR_NUMERIC",
    Internal => "ERR_INTERNAL",
    Abort => "ABORT_ERR",
}

/// One value of `details` in JavaScript.
#[derive(Clone, Debug, PartialEq)]
pub enum Field {
    /// A string.
    Text(String),
    /// A number; counts and bytes fit a double.
    Number(f64),
    /// `null`.
    Null,
}

impl From<&str> for Field {
    fn from(text: &str) -> Self {
        Field::Text(text.to_owned())
    }
}

impl From<String> for Field {
    fn from(text: String) -> Self {
        Field::Text(text)
    }
}

impl From<u64> for Field {
    #[allow(clippy::cast_precision_loss, reason = "counts stay below 2^53")]
    fn from(number: u64) -> Self {
        Field::Number(number as f64)
    }
}

impl From<usize> for Field {
    fn from(number: usize) -> Self {
        Field::from(number as u64)
    }
}

/// A failure with a code, a sentence for people and fields for programs.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// What kind of failure.
    pub code: Code,
    /// What, where, what to do.
    pub message: String,
    /// `details` in JavaScript, in the order of the contract.
    pub fields: Vec<(&'static str, Field)>,
}

impl Error {
    /// An error without details yet.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Error { code, message: message.into(), fields: Vec::new() }
    }

    /// Adds one field of `details`.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Field>) -> Self {
        self.fields.push((name, value.into()));
        self
    }

    /// A failure that lies at a place in a file: `at` is a byte offset, key, tensor or token.
    pub fn at(code: Code, path: &str, at: impl fmt::Display, what: impl fmt::Display) -> Self {
        let (path, at) = (shown(path), shown(&at.to_string()));
        Error::new(code, format!("{path}: {at}: {what}")).with("path", path).with("at", at)
    }

    /// An argument or option that is not what it should be.
    pub fn invalid_arg(name: &str, expected: &str, received: &str) -> Self {
        Error::new(Code::InvalidArg, format!("{name}: expected {expected}, got {received}"))
            .with("name", name)
            .with("expected", expected)
            .with("received", received)
    }

    /// The system starts no more threads: only so many of those that `what` wants.
    pub fn threads(what: &str, wanted: usize, started: usize, why: &std::io::Error) -> Self {
        let text = format!(
            "threads: the system starts {started} of {wanted} for {what} ({why}); ask for fewer \
             threads, or raise its limit on them"
        );
        let error = Error::new(Code::InsufficientMemory, text).with("memory", "threads");
        error.with("required", wanted).with("available", started)
    }

    /// A broken invariant of ours: never the user's fault, never a panic.
    pub fn internal(place: &str, what: impl fmt::Display) -> Self {
        let text = format!("internal error in {place}: {what}; please report it");
        Error::new(Code::Internal, text).with("where", place)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for Error {}

/// Text from a file made fit for a message: control characters escaped, at most 200 characters.
#[must_use]
pub fn shown(text: &str) -> String {
    const LIMIT: usize = 200;
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == LIMIT {
            out.push('…');
            break;
        }
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_long_text_is_cut() {
        assert_eq!(shown("a\u{1b}[31m\n"), "a\\u{1b}[31m\\n");
        assert_eq!(shown(&"x".repeat(5000)).chars().count(), 201);
    }

    #[test]
    fn codes_are_distinct() {
        let mut texts: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), Code::ALL.len());
    }
}
