//! Splits a line into words: quotes keep whitespace in a word, and double quotes know escapes. The other way, turns
//! bytes into a word that is read as the same bytes.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStringExt;

use anyhow::{Context, bail};

/// Bytes of a text that an error shows.
const SHOWN: usize = 60;

/// Where in a line a byte is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Within {
    /// In a bare word or whitespace.
    #[default]
    Nothing,
    /// `'...'`
    Single,
    /// `"..."`
    Double,
    /// After a backslash in `"..."`: the next byte does not end the quote.
    Escape,
}

impl Within {
    /// Where the next byte is.
    pub(super) fn after(self, byte: u8) -> Within {
        match (self, byte) {
            (Within::Nothing, b'\'') => Within::Single,
            (Within::Nothing, b'"') | (Within::Escape, _) => Within::Double,
            (Within::Single, b'\'') | (Within::Double, b'"') => Within::Nothing,
            (Within::Double, b'\\') => Within::Escape,
            (within, _) => within,
        }
    }
}

/// Splits a line. `"..."` may contain the escapes `\n`, `\r`, `\t`, `\0`, `\\`, `\"` and `\xNN`; `'...'` has none.
/// Words are bytes and need not be UTF-8.
///
/// # Errors
/// A quote is not closed, or an escape is invalid.
pub(super) fn split(line: &[u8]) -> anyhow::Result<Vec<OsString>> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii_start();
    while !rest.is_empty() {
        let (word, left) = word(rest, b"")?;
        words.push(OsString::from_vec(word));
        rest = left.trim_ascii_start();
    }
    Ok(words)
}

/// The first word and the rest. Outside quotes, a word ends before whitespace or one of `ends`.
///
/// # Errors
/// As for [`split`].
pub(super) fn word<'a>(text: &'a [u8], ends: &[u8]) -> anyhow::Result<(Vec<u8>, &'a [u8])> {
    let (mut word, mut within) = (Vec::new(), Within::Nothing);
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        let before = within;
        within = before.after(byte);
        match (before, within) {
            (Within::Nothing, Within::Nothing) if byte.is_ascii_whitespace() || ends.contains(&byte) => break,
            (Within::Escape, _) => {
                let (escaped, left) = escape(rest).with_context(|| format!("in {}", shortened(text)))?;
                word.push(escaped);
                rest = left;
                continue;
            }
            // Quotes, and the backslash of an escape, are not part of the word.
            (before, within) if before != within => {}
            _ => word.push(byte),
        }
        rest = after;
    }
    if within != Within::Nothing {
        bail!("unclosed quote: {}", shortened(text));
    }
    Ok((word, rest))
}

/// The byte that an escape stands for, and the rest. `text` begins after the backslash.
fn escape(text: &[u8]) -> anyhow::Result<(u8, &[u8])> {
    let (&letter, rest) = text.split_first().context("nothing follows the backslash")?;
    let byte = match letter {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'0' => 0,
        b'\\' | b'"' | b'\'' => letter,
        b'x' => {
            let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
            let byte = digits.filter(|digits| !digits.starts_with('+'));
            let byte = byte.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            let byte = byte.context("\\x must be followed by two hexadecimal digits")?;
            return Ok((byte, &rest[2..]));
        }
        other => bail!("\\{} is not an escape; allowed: \\n \\r \\t \\0 \\\\ \\\" \\xNN", [other].escape_ascii()),
    };
    Ok((byte, rest))
}

/// Bytes in double quotes, so that [`split`] reads the same bytes.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let mut text = "\"".to_owned();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                c if c.is_control() => text.push_str(&escaped(c.encode_utf8(&mut [0; 4]).as_bytes())),
                c => text.push(c),
            }
        }
        text.push_str(&escaped(chunk.invalid()));
    }
    text.push('"');
    text
}

/// Each byte as `\xNN`.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "\\x{byte:02x}");
    }
    text
}

/// Bytes as one word, in double quotes only where necessary.
pub(super) fn as_word(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.is_empty() && !text.starts_with('#') && !text.contains(needs_quotes) => text.to_owned(),
        _ => quoted(bytes),
    }
}

fn needs_quotes(c: char) -> bool {
    c.is_whitespace() || c.is_control() || "\"'\\".contains(c)
}

/// The beginning of a text, quoted, for an error.
pub(super) fn shortened(text: &[u8]) -> String {
    if text.len() <= SHOWN {
        return quoted(text);
    }
    // Don't cut a character in two.
    let end = (SHOWN - 3..=SHOWN).rfind(|end| text[*end] & 0xc0 != 0x80).unwrap_or(SHOWN);
    format!("{}...", quoted(&text[..end]))
}

/// The last word of a line that is being typed: where it begins, and its bytes so far. A quote may be open; an
/// incomplete escape is left out.
pub(super) fn last(line: &[u8]) -> (usize, Vec<u8>) {
    let (mut within, mut start) = (Within::Nothing, 0);
    for (at, byte) in line.iter().enumerate() {
        within = within.after(*byte);
        if within == Within::Nothing && byte.is_ascii_whitespace() {
            start = at + 1;
        }
    }
    let typed = &line[start..];
    // An escape is at most four bytes long.
    let shorter = (0..4).filter_map(|left_out| typed.len().checked_sub(left_out)).map(|length| &typed[..length]);
    let closed = shorter.flat_map(|text| [&b""[..], b"\"", b"'"].map(|quote| [text, quote].concat()));
    let words = closed.filter_map(|text| word(&text, b"").ok().map(|(word, _)| word));
    (start, words.into_iter().next().unwrap_or_default())
}

/// An error of clap about a line, with its tips, in one line.
pub(super) fn in_one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let paragraphs = text.split("\n\n").map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    let told: Vec<String> = paragraphs
        .enumerate()
        .filter(|(place, part)| *place == 0 || part.starts_with("tip: "))
        .map(|(_, part)| part.trim_start_matches("error: ").to_owned())
        .collect();
    told.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_words_together() {
        let words = |line: &str| split(line.as_bytes()).map_err(|error| format!("{error:#}"));
        let of = |list: &[&str]| Ok(list.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(words("  put  k v "), of(&["put", "k", "v"]));
        assert_eq!(
            words(r#"put k "a b\n\x41\"" 'c "d"\n' e"f g"h ''"#),
            of(&["put", "k", "a b\nA\"", "c \"d\"\\n", "ef gh", ""])
        );
        assert_eq!(words("größe 'ä ö' ü"), of(&["größe", "ä ö", "ü"]));
        assert_eq!(words("put k 'a\nb'\r\n"), of(&["put", "k", "a\nb"]));
        assert_eq!(words(""), of(&[]));
        for wrong in ["'a", "\"a", "\"a\\", "\"\\q\"", "\"\\x4\"", "\"\\x+1\"", "\"\\xzz\"", "\"\\x"] {
            assert!(words(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn words_need_not_be_text() {
        let words = split(b"put \xff\xfe \"\\xff\\x00 \xfd\"").expect("well-formed");
        let words: Vec<Vec<u8>> = words.into_iter().map(OsString::into_vec).collect();
        assert_eq!(words, [&b"put"[..], b"\xff\xfe", b"\xff\x00 \xfd"]);
    }

    #[test]
    fn what_is_shown_can_be_given_back() {
        let all: Vec<u8> = (0..=255).collect();
        let odd: [&[u8]; 12] = [
            b"",
            b"k",
            b"a b",
            b"\xff",
            b"\\xff",
            b"\"\\xff\"",
            b"it's",
            b"#k",
            "größe".as_bytes(),
            b"a\nb",
            &all,
            b"\xc3",
        ];
        for bytes in odd {
            for text in [quoted(bytes), as_word(bytes)] {
                let words = split(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error:#}"));
                assert_eq!(words, [OsString::from_vec(bytes.to_vec())], "{text}");
                assert!(!text.contains(char::is_control), "{text:?}");
            }
        }
        assert_eq!((as_word(b"k/1"), as_word("größe".as_bytes())), ("k/1".to_owned(), "größe".to_owned()));
        assert_eq!((as_word(b"a b"), as_word(b"\xff\x00")), (r#""a b""#.to_owned(), r#""\xff\x00""#.to_owned()));
        assert_eq!(shortened("ä".repeat(40).as_bytes()), format!("\"{}\"...", "ä".repeat(30)));
    }

    #[test]
    fn the_word_that_is_typed_is_known_before_it_ends() {
        let cases: [(&[u8], usize, &[u8]); 10] = [
            (b"get k", 4, b"k"),
            (b"get ", 4, b""),
            (b"get \"a b", 4, b"a b"),
            (b"get 'a b", 4, b"a b"),
            (b"get \"\\xff\\x0", 4, b"\xff"),
            (b"get \"\\xff\\x", 4, b"\xff"),
            (b"get \"\\xff\\", 4, b"\xff"),
            (b"get \"a b\" c", 10, b"c"),
            (b"get a\\", 4, b"a\\"),
            (b"", 0, b""),
        ];
        for (line, start, word) in cases {
            assert_eq!(last(line), (start, word.to_vec()), "{}", line.escape_ascii());
        }
    }
}
