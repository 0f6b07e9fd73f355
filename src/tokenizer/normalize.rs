//! What happens to a text before it is cut: canonical composition, and blanks.

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};

/// Canonical composition (NFC), copied only if something changes.
pub fn compose(text: &str) -> Cow<'_, str> {
    if text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.nfc().collect())
}

/// A text with plain blanks for U+2581: pieces are kept that way, and the two are one character
/// to these tokenizers. `prefix` puts a blank in front.
pub fn blanks(text: &str, prefix: bool) -> Cow<'_, str> {
    let escaped = text.contains('\u{2581}');
    match (prefix, escaped) {
        (false, false) => Cow::Borrowed(text),
        (false, true) => Cow::Owned(text.replace('\u{2581}', " ")),
        (true, _) => {
            let mut out = String::with_capacity(text.len().saturating_add(1));
            out.push(' ');
            if escaped {
                out.push_str(&text.replace('\u{2581}', " "))
            } else {
                out.push_str(text)
            }
            Cow::Owned(out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composition_and_blanks() {
        assert_eq!(compose("Cafe\u{301}"), "Café");
        assert!(matches!(compose("Café 漢"), Cow::Borrowed(_)));
        assert_eq!(blanks("a\u{2581}b", true), " a b");
        assert!(matches!(blanks("a b", false), Cow::Borrowed(_)));
    }
}
