//! Says what a file is that is not GGUF, so that the message can say what to do.

/// Bytes that are looked at.
pub(super) const HEAD_BYTES: usize = 512;

/// What the file seems to be, from its first bytes.
pub(super) fn recognise(head: &[u8]) -> &'static str {
    const MAGICS: &[(&[u8], &str)] = &[
        (b"version https://git-lfs", "a Git LFS pointer, not the model; run 'git lfs pull'"),
        (b"PK\x03\x04", "a ZIP archive (a PyTorch file?); convert it to GGUF"),
        (b"\x1f\x8b", "gzip data; unpack it first"),
        (b"\x28\xb5\x2f\xfd", "Zstandard data; unpack it first"),
        (b"\xfd7zXZ", "xz data; unpack it first"),
        (b"BZh", "bzip2 data; unpack it first"),
        (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
        (b"\x80\x02", "a Python pickle (a PyTorch file?); convert it to GGUF"),
        (b"lmgg", "a GGML file of before GGUF; convert it to GGUF"),
        (b"fmgg", "a GGMF file of before GGUF; convert it to GGUF"),
        (b"tjgg", "a GGJT file of before GGUF; convert it to GGUF"),
        (b"algg", "a GGLA adapter of before GGUF; convert it to GGUF"),
        (b"FUGG", "a file with the letters of GGUF reversed"),
        (b"\x89HDF", "an HDF5 file; convert it to GGUF"),
        (b"\x93NUMPY", "a NumPy file; convert it to GGUF"),
        (b"\x7fELF", "a program (ELF)"),
        (b"MZ", "a program (Windows)"),
        (b"%PDF", "a PDF document"),
    ];
    if head.is_empty() {
        return "an empty file (an unfinished download?)";
    }
    if b"GGUF".starts_with(head) {
        return "a GGUF file that ends within its first four bytes (an unfinished download?)";
    }
    if let Some((_, what)) = MAGICS.iter().find(|(magic, _)| head.starts_with(magic)) {
        return what;
    }
    if is_safetensors(head) {
        return "a safetensors file; convert it to GGUF";
    }
    if head.iter().all(|byte| *byte == 0) {
        return "filled with zeros (an unfinished download?)";
    }
    if !is_text(head) {
        return "not a GGUF file: it does not begin with 'GGUF'";
    }
    let text = head.trim_ascii_start().to_ascii_lowercase();
    if text.starts_with(b"<!doctype html") || text.starts_with(b"<html") {
        return "an HTML page (a failed download?)";
    }
    match text.first() {
        Some(b'<') => "an XML or HTML text (a failed download?)",
        Some(b'{' | b'[') => "a JSON text (a failed download?)",
        _ => "a text, not a GGUF file",
    }
}

/// A length as u64, then that many bytes of JSON.
fn is_safetensors(head: &[u8]) -> bool {
    let Some((length, json)) = head.split_first_chunk::<8>() else { return false };
    u64::from_le_bytes(*length) <= 100_000_000 && json.trim_ascii_start().starts_with(b"{")
}

fn is_text(head: &[u8]) -> bool {
    let shown = |byte: &u8| *byte >= 0x20 && *byte != 0x7f || matches!(byte, b'\t' | b'\n' | b'\r');
    let whole = match std::str::from_utf8(head) {
        Ok(_) => true,
        // The last character may be cut.
        Err(error) => error.error_len().is_none(),
    };
    whole && head.iter().all(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_mistakes_have_names() {
        let check = |head: &[u8], expected: &str| {
            assert!(recognise(head).contains(expected), "{} / {expected}", recognise(head));
        };
        check(b"", "empty");
        check(b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull");
        check(b"\n <!DOCTYPE HTML><html>", "HTML");
        check(b"\x10\0\0\0\0\0\0\0{\"w\":1}", "safetensors");
        check(b"PK\x03\x04abc", "ZIP");
        check(b"tjgg\x01\0\0\0", "GGJT");
        check(&[0; 40], "zeros");
        check("{\"ä\":1}".as_bytes(), "JSON");
        check(b"GGUG\x03\0\0\0", "does not begin");
    }
}
