//! Small vocabularies made here: what is refused and how it is said, and the rules that the
//! oracle's vocabularies do not exercise.

use super::*;
use crate::gguf::{Array, Strings, Value};

/// Metadata that a test can change.
struct Draft(Vec<(String, Value)>);

fn strings<T: AsRef<[u8]>>(list: &[T]) -> Value {
    Value::Array(Array::Strings(list.iter().collect::<Strings>()))
}

fn text(text: &str) -> Value {
    Value::String(text.as_bytes().to_vec())
}

impl Draft {
    fn set(mut self, name: &str, value: Value) -> Self {
        let key =
            if name.contains('.') { name.to_owned() } else { format!("tokenizer.ggml.{name}") };
        self.0.retain(|(known, _)| *known != key);
        self.0.push((key, value));
        self
    }

    fn drop(mut self, name: &str) -> Self {
        self.0.retain(|(key, _)| *key != format!("tokenizer.ggml.{name}"));
        self
    }

    fn build(&self) -> Result<Tokenizer> {
        let pairs: Vec<(&str, Value)> =
            self.0.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        Tokenizer::from_meta(&Meta::from_pairs(&pairs))
    }
}

/// `<unk> <s> </s> ▁ a b ab ▁a`, no byte tokens.
fn spm() -> Draft {
    let tokens = ["<unk>", "<s>", "</s>", "▁", "a", "b", "ab", "▁a"];
    let draft = Draft(Vec::new()).set("model", text("llama")).set("tokens", strings(&tokens));
    let kinds = Value::Array(Array::I32(vec![2, 3, 3, 1, 1, 1, 1, 1]));
    let scores = vec![0.0, 0.0, 0.0, -3.0, -4.0, -5.0, -1.0, -2.0];
    draft.set("token_type", kinds).set("scores", Value::Array(Array::F32(scores)))
}

/// `a b Ġ ab Ġa <|x|> <y>`: merges a+b, then blank+a.
fn bpe() -> Draft {
    let tokens = ["a", "b", "Ġ", "ab", "Ġa", "<|x|>", "<y>"];
    let kinds = Value::Array(Array::I32(vec![1, 1, 1, 1, 1, 3, 4]));
    let draft = Draft(Vec::new()).set("model", text("gpt2")).set("pre", text("gpt-2"));
    let draft = draft.set("tokens", strings(&tokens)).set("token_type", kinds);
    draft.set("merges", strings(&["a b", "Ġ a"]))
}

fn refused(draft: &Draft, code: &str, words: &[&str]) {
    let error = draft.build().map(|_| ()).unwrap_err();
    assert_eq!(error.code.as_str(), code, "{error}");
    for word in words {
        assert!(error.message.contains(word), "{error} does not say {word}");
    }
}

#[test]
fn broken_vocabularies_are_refused_by_name() {
    const BROKEN: &str = "ERR_TOKENIZER_INVALID";
    let i32s = |list: &[i32]| Value::Array(Array::I32(list.to_vec()));
    let f32s = |list: &[f32]| Value::Array(Array::F32(list.to_vec()));
    let merges = |merge: &str| bpe().set("merges", strings(&["a b", merge]));
    let tokens = |last: &str| ["a", "b", "Ġ", "ab", "Ġa", "<|x|>", last].map(str::to_owned);
    let cases: &[(Draft, &[&str])] = &[
        (spm().drop("model"), &["tokenizer.ggml.model", "missing"]),
        (spm().set("model", text("quantum")), &["unknown tokenizer 'quantum'", "llama, gpt2"]),
        (spm().set("model", Value::U32(1)), &["tokenizer.ggml.model", "string"]),
        (bpe().set("pre", text("gpt-99")), &["unknown pre-tokenizer 'gpt-99'"]),
        (spm().drop("tokens"), &["tokenizer.ggml.tokens", "missing"]),
        (spm().set("tokens", strings::<&str>(&[])), &["0 tokens"]),
        (bpe().set("tokens", strings(&tokens("a"))), &["token 6 (a) is the same as token 0"]),
        (spm().drop("scores"), &["tokenizer.ggml.scores", "missing"]),
        (spm().set("scores", f32s(&[0.0; 7])), &["7 scores for 8 tokens"]),
        (spm().set("scores", f32s(&[f32::NAN; 8])), &["score of token 0 is not finite"]),
        (spm().set("scores", Value::Array(Array::U8(vec![0; 8]))), &["array of f32"]),
        (spm().set("token_type", i32s(&[1; 9])), &["9 types for 8 tokens"]),
        (spm().set("token_type", i32s(&[1, 1, 1, 7, 1, 1, 1, 1])), &["token 3 (▁)", "type 7"]),
        (spm().set("token_type", i32s(&[1, 1, 1, 1, 6, 1, 1, 1])), &["token 4 (a)", "<0x00>"]),
        (spm().set("bos_token_id", Value::U32(8)), &["bos_token_id", "8 is no token"]),
        (spm().set("eos_token_id", Value::I32(-1)), &["eos_token_id", "-1 is no token"]),
        (spm().set("eot_token_id", text("2")), &["eot_token_id", "integer"]),
        (spm().set("add_bos_token", Value::U8(1)), &["add_bos_token", "true or false"]),
        (bpe().drop("merges"), &["tokenizer.ggml.merges", "missing"]),
        (merges("a zz"), &["merge 1 (a zz) names an unknown token"]),
        (merges("b b"), &["merge 1 (b b) makes an unknown token"]),
        (merges("ab"), &["merge 1 (ab) is not two tokens"]),
        (merges("a b b"), &["merge 1 (a b b)"]),
        (merges(""), &["merge 1 () is not two tokens"]),
        (merges(" "), &["merge 1 ( ) is not two tokens"]),
    ];
    for (draft, words) in cases {
        refused(draft, BROKEN, words);
    }
    refused(&spm().set("model", text("t5")), "ERR_UNSUPPORTED", &["'t5'", "not supported yet"]);
    let short = Value::Array(Array::U8(vec![1, 0]));
    refused(
        &spm().set("model", text("t5")).set("precompiled_charsmap", short),
        BROKEN,
        &["2 bytes"],
    );
}

#[test]
fn spm_merges_by_score_and_puts_a_blank_after_special_tokens() {
    let tokenizer = spm().build().unwrap();
    assert_eq!(tokenizer.encode("ab", true, false), [1, 3, 6]);
    assert_eq!(tokenizer.encode("a", false, false), [7]);
    assert_eq!(tokenizer.encode("a</s>a", false, true), [7, 2, 7]);
    assert_eq!(tokenizer.encode("", true, true), [1]);
    // Characters without a token are one "unknown" a row, and </s> is text here.
    assert_eq!(tokenizer.encode("a漢語b", false, false), [7, 0, 5]);
    assert_eq!(tokenizer.encode("</s>", false, false), [3, 0]);
    assert_eq!(tokenizer.decode(&[1, 7, 5, 2, 99], false), b" ab");
    assert_eq!(tokenizer.decode(&[1, 7, 5, 2, 99], true), b"<s> ab</s>");
    assert_eq!(tokenizer.eog(), [2]);
    let plain = spm().set("add_space_prefix", Value::Bool(false)).build().unwrap();
    assert_eq!(plain.encode("ab", false, false), [6]);
}

#[test]
fn bpe_merges_by_rank_and_finds_special_tokens_by_kind() {
    let tokenizer = bpe().build().unwrap();
    assert_eq!(tokenizer.encode("ab ab", false, false), [3, 2, 3]);
    assert_eq!(tokenizer.encode(" a", true, false), [4]);
    assert_eq!(tokenizer.encode("a<|x|>b<y>", false, true), [0, 5, 1, 6]);
    // Bytes that this vocabulary lacks are left out; user-defined tokens are found all the same.
    assert_eq!(tokenizer.encode("a<|x|>b<y>", false, false), [0, 1, 6]);
    assert!(tokenizer.is_control(5) && !tokenizer.is_control(6));
    assert_eq!((tokenizer.bos(), tokenizer.eos()), (None, None));
    assert!(!tokenizer.add_bos() && tokenizer.eog().is_empty());
    let named = bpe().set("eos_token_id", Value::U64(3)).build().unwrap();
    assert_eq!(named.eog(), [3]);
    assert_eq!(named.encode("ab", false, true), [3]);
}

#[test]
fn special_tokens_match_leftmost_then_longest_and_may_swallow_blanks() {
    let tokens = ["a", "Ġ", "<x", "<x>", "x>y", "b"];
    let kinds = Value::Array(Array::I32(vec![1, 1, 3, 3, 3, 1]));
    let draft = bpe().set("tokens", strings(&tokens)).set("token_type", kinds);
    let draft = draft.set("merges", strings::<&str>(&[]));
    assert_eq!(draft.build().unwrap().encode("a<x>y<xb", false, true), [0, 3, 2, 5]);
    let draft = draft.set("general.name", text("Phi-3 mini"));
    assert_eq!(draft.build().unwrap().encode("<x> \n a", false, true), [3, 0]);
}

#[test]
fn a_decoder_keeps_back_what_is_no_whole_character() {
    let tokens = ["ðŁ", "ĺĢ", "a", "Ã", "<|x|>"];
    let kinds = Value::Array(Array::I32(vec![1, 1, 1, 1, 3]));
    let draft = bpe().set("tokens", strings(&tokens)).set("token_type", kinds);
    let tokenizer = draft.set("merges", strings::<&str>(&[])).build().unwrap();
    let mut decoder = Decoder::new(std::sync::Arc::new(tokenizer));
    let mut push = |token| decoder.push(token);
    assert_eq!([push(0), push(4), push(1), push(3), push(2), push(0)].concat(), "😀\u{FFFD}a");
    assert_eq!(decoder.finish(), "\u{FFFD}");
}
