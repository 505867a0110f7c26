//! Quotes bytes as Go's `%q` does, which etcdctl uses for the environment of a watch's command.

use std::fmt::Write as _;

/// Bytes in double quotes, with Go's escapes.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let mut text = "\"".to_owned();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                '\x07' => text.push_str("\\a"),
                '\x08' => text.push_str("\\b"),
                '\x0c' => text.push_str("\\f"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                '\x0b' => text.push_str("\\v"),
                c if is_printable(c) => text.push(c),
                c => push_number(&mut text, u32::from(c)),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text.push('"');
    text
}

fn push_number(text: &mut String, c: u32) {
    let _ = match c {
        0..0x80 => write!(text, "\\x{c:02x}"),
        0x80..0x1_0000 => write!(text, "\\u{c:04x}"),
        _ => write!(text, "\\U{c:08x}"),
    };
}

/// Whether the standard library shows this character as it is, after another one: combining characters are printable.
fn is_printable(c: char) -> bool {
    ['\'', ' '].contains(&c) || !format!("a{c}").escape_debug().skip(1).any(|shown| shown == '\\')
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn bytes_are_quoted_as_in_go() {
        // As fmt.Sprintf("%q", []byte(...)) gives them.
        let cases: [(&[u8], &str); 10] = [
            (b"", r#""""#),
            (b"k/1", r#""k/1""#),
            (b"a b'c", r#""a b'c""#),
            (br#"a"\b"#, r#""a\"\\b""#),
            (b"\x07\x08\x0c\n\r\t\x0b", r#""\a\b\f\n\r\t\v""#),
            (b"\0\x1b\x7f", r#""\x00\x1b\x7f""#),
            (b"\xff\xc3(", r#""\xff\xc3(""#),
            ("gr\u{f6}\u{df}e e\u{301} \u{65e5}".as_bytes(), "\"gr\u{f6}\u{df}e e\u{301} \u{65e5}\""),
            ("\u{85}\u{a0}\u{ad}\u{200b}\u{feff}".as_bytes(), r#""\u0085\u00a0\u00ad\u200b\ufeff""#),
            ("\u{e0001}".as_bytes(), r#""\U000e0001""#),
        ];
        for (bytes, text) in cases {
            assert_eq!(quoted(bytes), text);
        }
    }
}
