//! The environment variables that are read, with their defaults; options win over them. The only
//! place that reads the environment.

use std::sync::OnceLock;

use crate::error::{Code, Error, Result};

/// Name, default and meaning of every variable.
pub const VARIABLES: &[(&str, &str, &str)] = &[
    ("NODE_CHORD_DEVICE", "auto", "device to run on, as `loadModel`'s `device`"),
    ("NODE_CHORD_THREADS", "auto", "CPU threads, 1..256, as `loadModel`'s `threads`"),
    ("NODE_CHORD_CPU", "auto", "kernel tier, as `loadModel`'s `cpu`"),
    ("NODE_CHORD_LOG", "off", "off, error, warn, info, debug or trace: what goes to stderr"),
    ("NODE_CHORD_ADDON", "", "the .node file to load; read before this code runs"),
];

/// How much is told on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing.
    Off,
    /// What went wrong.
    Error,
    /// What may surprise.
    Warn,
    /// What was loaded, where and how.
    Info,
    /// More for whoever looks for a fault.
    Debug,
    /// Everything.
    Trace,
}

/// `NODE_CHORD_DEVICE`, unless empty or `auto`.
#[must_use]
pub fn device() -> Option<String> {
    read("NODE_CHORD_DEVICE")
}

/// `NODE_CHORD_CPU`, unless empty or `auto`.
#[must_use]
pub fn cpu() -> Option<String> {
    read("NODE_CHORD_CPU")
}

/// `NODE_CHORD_THREADS`, unless empty or `auto`. Errors: `ERR_INVALID_ARG` if it is no number.
pub fn threads() -> Result<Option<usize>> {
    let Some(text) = read("NODE_CHORD_THREADS") else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        let message = format!("NODE_CHORD_THREADS: expected 'auto' or 1..256, got '{text}'");
        Error::new(Code::InvalidArg, message)
            .with("name", "NODE_CHORD_THREADS")
            .with("expected", "'auto' or 1..256")
            .with("received", text)
    })
}

/// `NODE_CHORD_LOG`; an unknown word means `off`.
#[must_use]
pub fn log_level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| match read("NODE_CHORD_LOG").as_deref() {
        Some("error") => Level::Error,
        Some("warn") => Level::Warn,
        Some("info") => Level::Info,
        Some("debug") => Level::Debug,
        Some("trace") => Level::Trace,
        _ => Level::Off,
    })
}

/// Writes a line to stderr if the level asks for it.
pub fn log(level: Level, text: &str) {
    if level != Level::Off && level <= log_level() {
        use std::io::Write;
        // A closed stderr must not end anything.
        drop(writeln!(std::io::stderr(), "node-chord: {text}"));
    }
}

fn read(name: &str) -> Option<String> {
    let text = std::env::var(name).ok()?;
    let text = text.trim();
    (!text.is_empty() && text != "auto").then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered_and_silence_is_the_default() {
        assert!(Level::Off < Level::Error && Level::Error < Level::Trace);
        assert!(VARIABLES.contains(&(
            "NODE_CHORD_LOG",
            "off",
            "off, error, warn, info, debug or trace: what goes to stderr"
        )));
    }
}
