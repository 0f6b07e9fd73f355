//! What holds for any text and any tokens.

use std::sync::{Arc, OnceLock};

use node_chord::tokenizer::{Decoder, Tokenizer};
use proptest::prelude::*;
use unicode_normalization::UnicodeNormalization;

use super::data;

fn all() -> &'static [(&'static str, Arc<Tokenizer>)] {
    static ALL: OnceLock<Vec<(&'static str, Arc<Tokenizer>)>> = OnceLock::new();
    ALL.get_or_init(|| {
        data::OURS.iter().map(|name| (*name, Arc::new(data::tokenizer(name).unwrap()))).collect()
    })
}

/// Text that is hard on tokenizers: any characters, and runs of the interesting ones.
fn text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        any::<String>(),
        "[ \\t\\r\\n]{1,6}",
        "[a-zA-Z']{1,12}",
        "[0-9]{1,9}",
        "[\\u{300}-\\u{36F}\\u{400}-\\u{4FF}\\u{4E00}-\\u{4E40}]{1,6}",
        Just("<|endoftext|>".to_owned()),
        Just("</s>".to_owned()),
        Just("\u{2581}".to_owned()),
    ];
    proptest::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 300,
        ..Default::default()
    })]

    #[test]
    fn text_comes_back_from_its_tokens(text in text(), parse in any::<bool>()) {
        for (name, tokenizer) in all() {
            let tokens = tokenizer.encode(&text, false, parse);
            let back = String::from_utf8(tokenizer.decode(&tokens, true)).unwrap();
            let same = |a: &str, b: &str| match *name {
                "qwen2" => a.nfc().eq(b.nfc()),
                // These put blanks in front of text, and know U+2581 only as a blank.
                "llama-spm" | "phi-3" => bare(a) == bare(b),
                _ => a == b,
            };
            prop_assert!(same(&back, &text), "{}: {:?} came back as {:?}", name, text, back);
        }
    }

    #[test]
    fn the_decoder_gives_the_lossy_text_of_all_bytes(
        choices in proptest::collection::vec(any::<(u32, bool)>(), 0..40)
    ) {
        for (name, tokenizer) in all() {
            let n_vocab = u32::try_from(tokenizer.n_vocab()).unwrap();
            // Half of them from the bytes, which stand near the front, so that characters break.
            let token = |(id, front): &(u32, bool)| id % if *front { 300 } else { n_vocab + 3 };
            let tokens: Vec<u32> = choices.iter().map(token).collect();
            let mut decoder = Decoder::new(tokenizer.clone());
            let mut got: String = tokens.iter().map(|token| decoder.push(*token)).collect();
            got.push_str(&decoder.finish());
            let bytes = tokenizer.decode(&tokens, false);
            prop_assert_eq!(got, String::from_utf8_lossy(&bytes), "{}", name);
        }
    }
}

/// A text without white space.
fn bare(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && *c != '\u{2581}').collect()
}
