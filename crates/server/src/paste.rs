//! Quotes words of commands that users paste into a shell.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;

/// Quotes a word for any POSIX shell, if necessary.
///
/// Text goes between single quotes. Bytes that are not text, and control characters, would not survive a terminal, so
/// `printf` prints them from octal escapes. (`$'...'` is in POSIX only since 2024.)
#[must_use]
pub fn quote(word: &OsStr) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(byte);
    match word.to_str() {
        Some(text) if !text.is_empty() && text.as_bytes().iter().all(is_plain) => text.to_owned(),
        Some(text) if !text.contains(char::is_control) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => printed(word.as_bytes()),
    }
}

/// A command substitution that prints these bytes.
fn printed(bytes: &[u8]) -> String {
    // A shell removes line breaks at the end of a command's output.
    let end = bytes.iter().rposition(|byte| *byte != b'\n').map_or(0, |last| last + 1);
    let (bytes, line_breaks) = bytes.split_at(end);
    let mut format = String::new();
    for byte in bytes {
        match byte {
            b'%' => format.push_str("%%"),
            // A hyphen at the beginning would be an option.
            b' '..=b'~' if !b"'\\-".contains(byte) => format.push(char::from(*byte)),
            _ => {
                // Writing to a string can't fail.
                let _ = write!(format, r"\{byte:03o}");
            }
        }
    }
    let tail = if line_breaks.is_empty() { String::new() } else { format!("'{}'", "\n".repeat(line_breaks.len())) };
    format!("\"$(printf '{format}')\"{tail}")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_is_printed_is_pasted_as_the_same_word() {
        let all: Vec<u8> = (1..=255).collect();
        let text: String = (' '..='~').collect();
        let words: [&[u8]; 18] = [
            b"",
            b"data",
            b"a b",
            b"it's",
            b"\"$HOME\" `id` $(id)",
            b"~",
            b"-n",
            b"--",
            b"a\\b",
            b"*?[x]",
            b"100 %d\\n",
            b"\xff",
            b"-\xff'%s\\n",
            b"a\nb",
            b"a\n\n",
            b"\n",
            "größe\t".as_bytes(),
            &all,
        ];
        for word in words.into_iter().chain([text.as_bytes(), b"a;b&c|d>e<f#g!h"]) {
            let quoted = quote(OsStr::from_bytes(word));
            let shell =
                Command::new("sh").arg("-c").arg(format!("printf '%s' {quoted}")).output().expect("sh is there");
            assert_eq!(shell.stdout, word, "{quoted}: {}", String::from_utf8_lossy(&shell.stderr));
        }
    }

    #[test]
    fn what_needs_no_quotes_has_none() {
        let shown = [
            ("/var/lib/bowline-1", "/var/lib/bowline-1"),
            ("a b", "'a b'"),
            ("it's", r"'it'\''s'"),
            ("größe", "'größe'"),
            ("a\tb", r#""$(printf 'a\011b')""#),
        ];
        for (word, quoted) in shown {
            assert_eq!(quote(OsStr::new(word)), quoted);
        }
    }
}
