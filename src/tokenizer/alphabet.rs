//! GPT-2's alphabet: printable characters of Latin-1 stand for themselves as bytes, the other 68
//! bytes for U+0100 and on, in order.

/// The character of a byte.
pub fn char_of(byte: u8) -> char {
    let plain = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if plain(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|b| !plain(*b)).count();
    u32::try_from(before).ok().and_then(|n| char::from_u32(n.saturating_add(0x100))).unwrap_or('\0')
}

/// The byte of a character.
fn byte_of(c: char) -> Option<u8> {
    Some(match c {
        '!'..='~' | '\u{A1}'..='\u{AC}' | '\u{AE}'..='\u{FF}' => c as u8,
        '\u{100}'..='\u{120}' => (c as u32).wrapping_sub(0x100) as u8,
        '\u{121}'..='\u{142}' => (c as u32).wrapping_sub(0x121).wrapping_add(0x7F) as u8,
        '\u{143}' => 0xAD,
        _ => return None,
    })
}

/// Appends the bytes that a text spells. What is not of the alphabet stands for itself; then the
/// answer is false.
pub fn decode(text: &[u8], out: &mut Vec<u8>) -> bool {
    let mut pure = true;
    for chunk in text.utf8_chunks() {
        for c in chunk.valid().chars() {
            match byte_of(c) {
                Some(byte) => out.push(byte),
                None => {
                    pure = false;
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
        pure &= chunk.invalid().is_empty();
        out.extend_from_slice(chunk.invalid());
    }
    pure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_character_of_its_own() {
        for byte in 0..=255 {
            assert_eq!(byte_of(char_of(byte)), Some(byte));
        }
        assert_eq!(char_of(b' '), 'Ġ');
        assert_eq!(char_of(b'\n'), 'Ċ');
        let mut out = Vec::new();
        assert!(decode("ĠGPT".as_bytes(), &mut out));
        assert!(!decode("漢".as_bytes(), &mut out));
        assert_eq!(out, " GPT漢".as_bytes());
    }
}
