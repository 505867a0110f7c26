//! A line as words: quotes keep blanks together, and double quotes know escapes.

use anyhow::{Context, bail};

/// Splits a line. `"..."` may hold `\n`, `\r`, `\t`, `\0`, `\\`, `\"` and `\xNN`; `'...'` is as it is written.
///
/// # Errors
/// A quote has no end, an escape is none, or what comes out is no text.
pub(super) fn split(line: &str) -> anyhow::Result<Vec<String>> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, left) = word(rest)?;
        words.push(word);
        rest = left.trim_start();
    }
    Ok(words)
}

/// The first word, and what follows it.
fn word(text: &str) -> anyhow::Result<(String, &str)> {
    let mut bytes = Vec::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c.is_whitespace() => {
                end = at;
                break;
            }
            '\'' => {
                let inner = chars.as_str();
                let length = inner.find('\'').with_context(|| format!("the quote has no end: {}", &text[at..]))?;
                bytes.extend_from_slice(&inner.as_bytes()[..length]);
                chars.nth(inner[..length].chars().count());
            }
            '"' => quoted(&mut chars, &mut bytes).with_context(|| format!("in {}", &text[at..]))?,
            c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    let word = String::from_utf8(bytes).ok().context("an escape makes bytes that are no UTF-8 text")?;
    Ok((word, &text[end..]))
}

/// What follows a double quote, up to its end.
fn quoted(chars: &mut std::str::CharIndices, bytes: &mut Vec<u8>) -> anyhow::Result<()> {
    while let Some((_, c)) = chars.next() {
        match c {
            '"' => return Ok(()),
            '\\' => {
                let escape = chars.next().context("the quote has no end")?.1;
                bytes.push(match escape {
                    'n' => b'\n',
                    'r' => b'\r',
                    't' => b'\t',
                    '0' => 0,
                    '\\' | '"' | '\'' => escape as u8,
                    'x' => {
                        let digits: String = chars.by_ref().take(2).map(|(_, digit)| digit).collect();
                        let byte = u8::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 2);
                        byte.with_context(|| format!("\\x{digits} is no byte; allowed: two hexadecimal digits"))?
                    }
                    other => bail!("\\{other} is no escape; allowed: \\n \\r \\t \\0 \\\\ \\\" \\xNN"),
                });
            }
            c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bail!("the quote has no end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_words_together() {
        let words = |line| split(line).map_err(|error| format!("{error:#}"));
        let of = |list: &[&str]| Ok(list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(words("  put  k v "), of(&["put", "k", "v"]));
        assert_eq!(
            words(r#"put k "a b\n\x41\"" 'c "d"\n' e"f g"h ''"#),
            of(&["put", "k", "a b\nA\"", "c \"d\"\\n", "ef gh", ""])
        );
        assert_eq!(words("größe 'ä ö' ü"), of(&["größe", "ä ö", "ü"]));
        assert_eq!(words(""), of(&[]));
        for wrong in ["'a", "\"a", "\"a\\", "\"\\q\"", "\"\\x4\"", "\"\\xff\""] {
            assert!(words(wrong).is_err(), "{wrong}");
        }
    }
}
