//! Stop strings, whole characters, what is held back and what is cut.

use super::*;

/// Tokens are bytes: token 0x61 is "a".
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Decode for Bytes {
    fn push(&mut self, token: u32) -> String {
        self.0.push(u8::try_from(token).unwrap());
        match std::str::from_utf8(&self.0) {
            Ok(text) => {
                let text = text.to_owned();
                self.0.clear();
                text
            }
            Err(_) => String::new(),
        }
    }

    fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.0)).into_owned()
    }
}

/// Tokens are strings out of a list.
struct Words(&'static [&'static str]);

impl Decode for Words {
    fn push(&mut self, token: u32) -> String {
        self.0[token as usize].to_owned()
    }

    fn finish(&mut self) -> String {
        String::new()
    }
}

struct Written {
    text: String,
    tokens: Vec<u32>,
    chunks: Vec<String>,
    stopped_by: Option<String>,
    cut: usize,
}

fn write(decoder: impl Decode + 'static, stops: &[&str], tokens: &[u32]) -> Written {
    let stops: Vec<String> = stops.iter().map(|&stop| stop.to_owned()).collect();
    let mut writer = Writer::new(Box::new(decoder), &stops);
    let (mut chunks, mut handed) = (Vec::new(), Vec::new());
    for &token in tokens {
        let is_over = writer.push(token, None);
        if is_over {
            break;
        }
        if let Some(chunk) = writer.chunk() {
            handed.extend(chunk.tokens);
            chunks.push(chunk.text);
        }
    }
    let (last, cut) = writer.finish();
    if let Some(chunk) = last {
        handed.extend(chunk.tokens);
        chunks.push(chunk.text);
    }
    let stopped_by = writer.stopped_by().map(str::to_owned);
    let (text, tokens, _) = writer.into_parts();
    assert_eq!(chunks.concat(), text);
    assert_eq!(handed, tokens);
    Written { text, tokens, chunks, stopped_by, cut }
}

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

#[test]
fn stop_strings_are_found_across_tokens_and_cut() {
    let check = |text: &str, stops: &[&str], expected: &str, by: Option<&str>| {
        let written = write(Bytes::default(), stops, &bytes(text));
        assert_eq!((written.text.as_str(), written.stopped_by.as_deref()), (expected, by));
    };
    check("hello world", &["lo w"], "hel", Some("lo w"));
    check("hello world", &["xyz"], "hello world", None);
    check("aaab", &["aab"], "a", Some("aab"));
    check("ababac", &["abac", "zz"], "ab", Some("abac"));
    check("User", &["User:"], "User", None);
    check("naïve", &["ï"], "na", Some("ï"));
    check("xabc", &["bc", "abc"], "x", Some("abc"));
    check("xabcd", &["abcd", "b"], "xa", Some("b"));
    check("stop", &["stop"], "", Some("stop"));
    check("aXbXc", &["X"], "a", Some("X"));
}

#[test]
fn text_that_may_begin_a_stop_string_is_held_back() {
    let written = write(Bytes::default(), &["END"], &bytes("aENxb"));
    assert_eq!(written.chunks, ["a", "ENx", "b"]);
    assert_eq!(written.tokens, bytes("aENxb"));
}

#[test]
fn tokens_of_the_stop_string_are_dropped_but_the_one_it_cuts_through_stays() {
    const WORDS: &[&str] = &["one", " tw", "o E", "N", "D!", " more"];
    let written = write(Words(WORDS), &["END"], &[0, 1, 2, 3, 4, 5]);
    assert_eq!(written.text, "one two ");
    assert_eq!(written.tokens, [0, 1, 2]);
    assert_eq!(written.cut, 2);
}

#[test]
fn characters_are_whole_and_leftover_bytes_become_replacements() {
    let written = write(Bytes::default(), &[], &bytes("a€b"));
    assert_eq!(written.chunks, ["a", "€", "b"]);
    let mut broken = bytes("a€");
    broken.pop();
    let written = write(Bytes::default(), &[], &broken);
    assert_eq!(written.text, "a\u{FFFD}");
    assert_eq!(written.tokens, broken);
}

#[test]
fn tokens_without_text_are_not_kept_waiting_for_ever() {
    const WORDS: &[&str] = &["", "x"];
    let written = write(Words(WORDS), &[], &[0; 40]);
    assert_eq!(written.tokens.len(), 40);
    assert!(written.chunks.len() > 1, "{:?}", written.chunks);
}

#[test]
fn a_long_periodic_stop_string_costs_constant_time_a_byte() {
    let stop = format!("{}b", "a".repeat(1_000_000));
    let written = write(Bytes::default(), &[&stop], &bytes(&"a".repeat(300_000)));
    assert_eq!(written.text.len(), 300_000);
}
