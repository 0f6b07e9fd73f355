//! Text that must stay text: what spells a control token in it is broken by a mark, a character
//! that occurs nowhere else, before the text becomes part of a larger one.

use super::Tokenizer;
use super::merge::Merger;
use super::special::Part;

impl Tokenizer {
    /// Whether a text spells a token that `encode` would not find without `parse_special`.
    #[must_use]
    pub fn has_control(&self, text: &str) -> bool {
        self.specials.next_control(text, 0).is_some()
    }

    /// The text with a mark behind the first character of whatever spells a control token.
    #[must_use]
    pub fn break_control(&self, text: &str, mark: char) -> String {
        let mut out = String::with_capacity(text.len());
        let mut from = 0;
        while let Some(start) = self.specials.next_control(text, from) {
            let rest = text.get(start..).unwrap_or_default();
            let end = start.saturating_add(rest.chars().next().map_or(1, char::len_utf8));
            out.push_str(text.get(from..end).unwrap_or_default());
            out.push(mark);
            from = end;
        }
        out.push_str(text.get(from..).unwrap_or_default());
        out
    }

    /// As `encode` with `parse_special`, for a text with marks: what they break is text, and they
    /// are no part of it.
    #[must_use]
    pub fn encode_marked(&self, text: &str, mark: char) -> Vec<u32> {
        let mut out = Vec::new();
        let mut merger = Merger::default();
        let mut after_special = true;
        self.specials.split_marked(text, mark, |part| match part {
            Part::Token(token) => {
                out.push(token);
                after_special = true;
            }
            Part::Text(text) => {
                let text = text.replace(mark, "");
                self.encode_text(&text, after_special, &mut merger, &mut out);
                after_special = false;
            }
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{Array, Meta, Value};

    /// Letters, blanks, the control tokens `<a>`, `a>>` and `!`, the user-defined token `<b>`.
    fn tokenizer() -> Tokenizer {
        let special = ["<unk>", "<a>", "a>>", "!", "<b>"];
        let mut texts: Vec<String> = special.map(str::to_owned).to_vec();
        let mut kinds = vec![2, 3, 3, 3, 4];
        texts.extend("<>abx\u{2581}".chars().map(String::from));
        kinds.resize(texts.len(), 1);
        let scores = vec![0.0; texts.len()];
        let meta = Meta::from_pairs(&[
            ("tokenizer.ggml.model", Value::String(b"llama".to_vec())),
            ("tokenizer.ggml.tokens", Value::Array(Array::Strings(texts.iter().collect()))),
            ("tokenizer.ggml.token_type", Value::from(kinds)),
            ("tokenizer.ggml.scores", Value::from(scores)),
            ("tokenizer.ggml.add_space_prefix", Value::from(false)),
        ]);
        Tokenizer::from_meta(&meta).expect("a vocabulary")
    }

    /// A text that is marked gives no control token, and the text again.
    fn check(text: &str, controls: bool) {
        let tokenizer = tokenizer();
        assert_eq!(tokenizer.has_control(text), controls, "{text}");
        let broken = tokenizer.break_control(text, '|');
        let tokens = tokenizer.encode_marked(&broken, '|');
        assert_eq!(String::from_utf8(tokenizer.decode(&tokens, true)).unwrap(), text);
        assert!(tokens.iter().all(|token| *token > 3), "{text}: {tokens:?}");
        assert_eq!(tokenizer.encode(text, false, false), tokens, "{text}");
    }

    #[test]
    fn marked_text_is_tokenised_as_plain_text_is() {
        check("ab x", false);
        check("x<a>x", true);
        check("<a>><a<a>a>>>", true);
        check("<b>x<b", false);
        check("a<b>x<b><a>", true);
    }

    #[test]
    fn what_is_not_marked_is_still_a_token() {
        let tokenizer = tokenizer();
        let text = format!("<a>{}!", tokenizer.break_control("x<a>!", '|'));
        let tokens = tokenizer.encode_marked(&text, '|');
        let special: Vec<_> = tokens.iter().filter(|token| **token <= 3).collect();
        assert_eq!(special, [&1, &0, &3], "the marked ! is no letter that this vocabulary has");
    }
}
