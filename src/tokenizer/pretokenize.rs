//! The table of pre-tokenizers: `tokenizer.ggml.pre` to patterns and habits. Data only; `split`
//! knows how a pattern cuts. The names are llama.cpp's; where its patterns differ from those of
//! the models' own `tokenizer.json`, the latter stand here.

use std::borrow::Cow;

use super::normalize;
use super::patterns::*;
use super::split::{self, Step};
use super::vocab::Spelling;
use crate::error::Result;

/// Habits, as bits.
type Habits = u16;
/// Words are characters with `<0x00>` tokens to fall back to, not GPT-2's alphabet.
const RAW: Habits = 1;
/// A blank is spelt U+2581.
const BLANKS: Habits = 1 << 1;
/// A word that is a token is not merged.
const IGNORE_MERGES: Habits = 1 << 2;
/// BOS is added where the file does not say.
const ADD_BOS: Habits = 1 << 3;
/// SEP is added where the file does not say.
const ADD_SEP: Habits = 1 << 4;
/// There is no BOS where the file does not say.
const NO_BOS: Habits = 1 << 5;
/// Text is composed (NFC) first, which no key of the file tells.
const NFC: Habits = 1 << 6;

/// BOS and EOS where the file does not say: falcon's, since it was the first of this kind.
const DEFAULT_ID: u32 = 11;

/// One row: names, patterns applied one after another, habits.
type Row = (&'static [&'static str], &'static [&'static str], Habits);

#[rustfmt::skip]
const TABLE: &[Row] = &[
    (&["", "default"], &[DEFAULT_SYMBOLS, GPT2, DIGITS, DIGITS_ASCII_3], 0),
    (&["minicpm5"], &[DIGITS_3, MINICPM5], IGNORE_MERGES),
    (&["llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
       "jina-v5-nano"], &[LLAMA3], IGNORE_MERGES | ADD_BOS),
    (&["dbrx", "smaug-bpe"], &[LLAMA3], 0),
    (&["chatglm-bpe"], &[LLAMA3], NO_BOS),
    (&["glm4", "glm5"], &[LLAMA3], IGNORE_MERGES | NO_BOS),
    (&["deepseek-llm"], &[NEWLINE, DEEPSEEK_LETTERS, DEEPSEEK_SYMBOLS, BLANKS_AT_END, DEEPSEEK_CJK,
       DIGITS], 0),
    (&["deepseek-coder"], &[NEWLINE, LETTERS, PUNCTUATION, DEEPSEEK_CJK, DIGIT], 0),
    (&["deepseek-v3", "hunyuan-dense", "hy_v4", "joyai-llm"], &[DIGITS_3, CJK, DEEPSEEK_V3], 0),
    (&["spark2_5"], &[DIGITS_3, CJK, SPARK, DIGIT], 0),
    (&["afmoe"], &[TRIPLES_AFMOE, AFMOE_SCRIPTS, DEEPSEEK_V3], 0),
    (&["youtu"], &[YOUTU_SCRIPTS, YOUTU], IGNORE_MERGES),
    (&["falcon"], &[FALCON_SYMBOLS, GPT2, DIGITS_ASCII_3], 0),
    (&["gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es", "jina-v2-de", "a.x-4.0",
       "mellum", "jais", "exaone4", "trillion", "granite-docling"], &[GPT2], 0),
    (&["mpt", "olmo", "modern-bert"], &[GPT2], NFC),
    (&["jina-v1-en", "jina-v2-code", "roberta-bpe"], &[GPT2], ADD_SEP),
    (&["starcoder", "refact", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"],
       &[DIGIT, GPT2], 0),
    (&["command-r"], &[DIGIT, GPT2], NFC),
    (&["jais-2"], &[JAIS2], 0),
    (&["gemma4", "granite-embed-multi-311m", "sarvam-moe"], &[LINES], RAW | BLANKS),
    (&["whitespace"], &[NOT_BLANK], RAW),
    (&["qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "stablelm2", "megrez"], &[QWEN2], NFC),
    (&["hunyuan", "grok-2", "solar-open"], &[QWEN2], 0),
    (&["qwen35"], &[QWEN35], NFC),
    (&["laguna"], &[LINES, QWEN2], 0),
    (&["ufakzeka"], &[UFAKZEKA], 0),
    (&["bailingmoe", "bailingmoe2", "llada-moe"], &[BAILING], 0),
    (&["seed-coder"], &[SEED], 0),
    (&["exaone-moe"], &[EXAONE_MOE], 0),
    (&["poro-chat", "bloom", "gpt3-finnish"], &[BLOOM], 0),
    (&["viking"], &[BLOOM, DIGIT], 0),
    (&["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], &[GPT4O], 0),
    (&["tekken"], &[TEKKEN], IGNORE_MERGES | ADD_BOS),
    (&["granite-embed-multi-97m"], &[GRANITE], IGNORE_MERGES),
    (&["tiny_aya", "cohere2moe"], &[TRIPLES_BOUNDARY, GPT4O], 0),
    (&["kimi-k2"], &[HAN, KIMI], 0),
    (&["superbpe"], &[DIGITS, TRIPLES_POINTS], 0),
    (&["chameleon"], &[CHAMELEON_SENTINEL, CHAMELEON_IMAGE, CHAMELEON_BLANK_RUNS, DIGIT,
       CHAMELEON_PUNCTUATION_ALL, GPT2], ADD_BOS),
];

/// Every known name, in the order of the table; the empty one stands for a missing key.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().flat_map(|(names, _, _)| names.iter().copied())
}

/// A pre-tokenizer made ready.
#[derive(Clone, Debug)]
pub struct Pre {
    habits: Habits,
    steps: Vec<Step>,
}

impl Pre {
    /// The pre-tokenizer of a name, if there is one.
    ///
    /// # Errors
    /// `ERR_INTERNAL` if a pattern of the table were wrong.
    pub fn named(name: &str) -> Result<Option<Self>> {
        let Some((_, patterns, habits)) = TABLE.iter().find(|row| row.0.contains(&name)) else {
            return Ok(None);
        };
        let steps = patterns.iter().map(|pattern| Step::new(pattern)).collect::<Result<_>>()?;
        Ok(Some(Pre { habits: *habits, steps }))
    }

    fn has(&self, habit: Habits) -> bool {
        self.habits & habit != 0
    }

    /// How tokens spell bytes.
    pub fn spelling(&self) -> Spelling {
        match (self.has(RAW), self.has(BLANKS)) {
            (false, _) => Spelling::Bytes,
            (true, false) => Spelling::Raw,
            (true, true) => Spelling::Blanks,
        }
    }

    /// Whether a word that is a token is taken whole.
    pub fn ignore_merges(&self) -> bool {
        self.has(IGNORE_MERGES)
    }

    /// Whether BOS is added where the file does not say.
    pub fn add_bos(&self) -> bool {
        self.has(ADD_BOS)
    }

    /// Whether SEP is added where the file does not say.
    pub fn add_sep(&self) -> bool {
        self.has(ADD_SEP)
    }

    /// BOS and EOS where the file does not say.
    pub fn default_ids(&self) -> [Option<u32>; 2] {
        [(!self.has(NO_BOS)).then_some(DEFAULT_ID), Some(DEFAULT_ID)]
    }

    /// What happens to a text before it is cut.
    pub fn normalize<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.has(NFC) {
            normalize::compose(text)
        } else if self.has(BLANKS) {
            normalize::blanks(text, false)
        } else {
            Cow::Borrowed(text)
        }
    }

    /// Cuts a text into pieces; nothing merges across them.
    pub fn split<'t>(&self, text: &'t str, emit: &mut dyn FnMut(&'t str)) {
        split::pieces(&self.steps, text, emit);
    }
}
