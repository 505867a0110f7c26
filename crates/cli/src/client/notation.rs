//! The notation of keys and values: as they are, in hexadecimal, or in base64.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use clap::Args;

use super::words;

/// The chosen notation. Without one, keys and values are written as they are.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct Notation {
    /// Read and print keys and values in hexadecimal.
    #[arg(long, conflicts_with = "base64")]
    hex: bool,
    /// Read and print keys and values in base64.
    #[arg(long)]
    base64: bool,
}

impl Notation {
    /// This notation, or `other` if none was chosen.
    pub(crate) fn or(self, other: Notation) -> Notation {
        if self.hex || self.base64 { self } else { other }
    }

    /// The bytes that a word stands for; `name` is for the error.
    ///
    /// # Errors
    /// It is not in this notation.
    pub(crate) fn read(self, name: &str, word: &OsStr) -> anyhow::Result<Bytes> {
        let given = word.as_bytes();
        if self.hex {
            return from_hex(given).with_context(|| {
                let (shown, meant) = (words::shortened(given), to_hex(&given[..given.len().min(8)]));
                let dots = if given.len() > 8 { "..." } else { "" };
                format!(
                    "{name} is {shown}; allowed with --hex: pairs of hexadecimal digits (as hexadecimal, this text \
                     is {meant}{dots})"
                )
            });
        }
        if self.base64 {
            let read = STANDARD.decode(given).map(Bytes::from);
            let allowed = || format!("{name} is {}; allowed with --base64: padded base64", words::shortened(given));
            return read.with_context(allowed);
        }
        Ok(Bytes::copy_from_slice(given))
    }

    /// Bytes in this notation; `None` if they are to be written as they are.
    pub(crate) fn write(self, bytes: &[u8]) -> Option<String> {
        match (self.hex, self.base64) {
            (true, _) => Some(to_hex(bytes)),
            (_, true) => Some(STANDARD.encode(bytes)),
            _ => None,
        }
    }

    /// Its name in JSON.
    pub(crate) fn name(self) -> Option<&'static str> {
        match (self.hex, self.base64) {
            (true, _) => Some("hex"),
            (_, true) => Some("base64"),
            _ => None,
        }
    }
}

/// Two digits for each byte.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `ff00`, or `\xff\x00` as etcdctl prints it.
///
/// # Errors
/// The text is neither.
pub(super) fn from_hex(mut text: &[u8]) -> anyhow::Result<Bytes> {
    let mut bytes = Vec::with_capacity(text.len() / 2);
    while !text.is_empty() {
        text = text.strip_prefix(b"\\x").unwrap_or(text);
        let digits = text.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let digits =
            digits.and_then(|digits| std::str::from_utf8(digits).ok()).context("not a pair of hexadecimal digits")?;
        bytes.push(u8::from_str_radix(digits, 16)?);
        text = &text[2..];
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: Notation = Notation { hex: true, base64: false };
    const BASE64: Notation = Notation { hex: false, base64: true };

    #[test]
    fn what_is_written_is_read_as_the_same_bytes() {
        let all: Vec<u8> = (0..=255).collect();
        for bytes in [&b""[..], b"k", b"\xff\x00", &all] {
            for notation in [HEX, BASE64] {
                let text = notation.write(bytes).expect("it is not as it is");
                assert_eq!(notation.read("KEY", OsStr::new(&text)).expect("well-formed"), bytes, "{text}");
            }
            assert_eq!(Notation::default().read("KEY", OsStr::from_bytes(bytes)).expect("anything"), bytes);
        }
        assert_eq!(HEX.read("KEY", OsStr::new(r"\xff\x00")).expect("etcdctl's form"), b"\xff\x00"[..]);
        assert_eq!(HEX.read("KEY", OsStr::new("FF0a")).expect("either case"), b"\xff\x0a"[..]);
    }

    #[test]
    fn what_is_not_in_a_notation_is_refused_with_what_is_allowed() {
        let refused = |notation: Notation, word| {
            let error = notation.read("KEY", OsStr::new(word)).expect_err("it is not in it");
            error.to_string()
        };
        assert_eq!(
            refused(HEX, "foo"),
            "KEY is \"foo\"; allowed with --hex: pairs of hexadecimal digits (as hexadecimal, this text is 666f6f)"
        );
        for wrong in ["f", "fff", "+f", "0x", " ff", "ff 00", "\\x"] {
            assert!(refused(HEX, wrong).contains("allowed with --hex"), "{wrong}");
        }
        for wrong in ["a", "Zm9", "====", "Zm9v Zm9v"] {
            assert!(refused(BASE64, wrong).contains("allowed with --base64"), "{wrong}");
        }
    }
}
