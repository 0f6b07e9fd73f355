//! The splitters against each other: whatever the text, a hand-written one cuts as the general.

use proptest::prelude::*;

use super::*;

/// Every hand-written splitter that the general engine can also do.
const BOTH: [&str; 14] = [
    patterns::GPT2,
    patterns::LLAMA3,
    patterns::QWEN2,
    patterns::QWEN35,
    patterns::MINICPM5,
    patterns::SEED,
    patterns::UFAKZEKA,
    patterns::GPT4O,
    patterns::YOUTU,
    patterns::TEKKEN,
    patterns::DEEPSEEK_V3,
    patterns::CJK,
    patterns::DIGITS_3,
    patterns::DIGITS,
];

/// Texts of characters that the patterns tell apart.
const TEXTS: &str = concat!(
    "([ \t\r\n/'aAbBsSſ1²éÉ\u{301}\u{302}漢ǅʰのー!.,_€\u{0}\u{200b}\u{a0}]",
    "|re|'LL|.){0,40}"
);

fn cut(step: &Step, text: &str) -> Vec<String> {
    let mut out = Vec::new();
    step.cut(text, &mut |piece| out.push(piece.to_owned()));
    out
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 400,
        ..Default::default()
    })]

    #[test]
    fn hand_written_splitters_equal_the_general_engine(
        text in TEXTS
    ) {
        for pattern in BOTH {
            let hand = Step::new(pattern).unwrap();
            prop_assert!(!matches!(hand, Step::General(_)));
            let general = Step::General(Box::new(General::new(pattern).unwrap()));
            let (hand, general) = (cut(&hand, &text), cut(&general, &text));
            prop_assert_eq!(&hand, &general, "{}", pattern);
            prop_assert_eq!(hand.concat(), text.clone());
        }
    }
}

#[test]
fn blanks_before_text_are_cut_by_powers_of_two() {
    let step = Step::new(patterns::JAIS2).unwrap();
    let lengths = |text: &str| -> Vec<usize> { cut(&step, text).iter().map(String::len).collect() };
    assert_eq!(lengths("   x"), [2, 2]);
    assert_eq!(lengths("      x"), [4, 1, 2]);
    assert_eq!(lengths("    "), [4]);
    assert_eq!(lengths("       "), [4, 2, 1]);
    assert_eq!(lengths("       x"), [4, 2, 2]);
    assert_eq!(lengths("       1"), [4, 2, 1, 1]);
    assert_eq!(lengths("   \n     x"), [4, 4, 2]);
    assert_eq!(lengths(&" ".repeat(515)), [512, 2, 1]);
}

#[test]
fn digits_are_grouped_from_the_right() {
    let lengths = |pattern: &str, text: &str| -> Vec<usize> {
        cut(&Step::new(pattern).unwrap(), text).iter().map(String::len).collect()
    };
    assert_eq!(lengths(patterns::TRIPLES_AFMOE, "a1234567b"), [1, 1, 3, 3, 1]);
    assert_eq!(lengths(patterns::TRIPLES_BOUNDARY, "1234567 12a"), [1, 3, 3, 4]);
    assert_eq!(lengths(patterns::TRIPLES_POINTS, "1234567"), [1, 3, 3]);
    assert_eq!(lengths(patterns::TRIPLES_POINTS, "a123456b"), [1, 3, 4]);
}
