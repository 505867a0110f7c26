//! Writes answers: for people, for programs, or byte for byte.

use std::io::{IsTerminal, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bowline_api::mvccpb::KeyValue;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::{Notation, Table, words};

/// The format of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Text, for people and for scripts.
    #[default]
    Plain,
    /// A table.
    Table,
    /// One JSON value; bytes that are not UTF-8 are in base64, and "encoding" says so.
    Json,
    /// Only values, byte for byte, with nothing between or after them.
    Raw,
}

#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct OutputArgs {
    /// Output format.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Format,
    /// Same as -o raw.
    #[arg(long, conflicts_with = "output")]
    raw: bool,
    /// Same as -o json.
    #[arg(long, conflicts_with_all = ["output", "raw"])]
    json: bool,
}

impl OutputArgs {
    pub(crate) fn of(format: Format) -> OutputArgs {
        OutputArgs { output: format, ..OutputArgs::default() }
    }

    pub(crate) fn format(self) -> Format {
        match (self.raw, self.json) {
            (true, _) => Format::Raw,
            (_, true) => Format::Json,
            _ => self.output,
        }
    }
}

/// Which part of a key-value pair is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    Keys,
    Values,
    Both,
}

/// Writes each key and each value on a line; byte for byte, except on a terminal.
pub(crate) fn write_plain(
    kvs: &[KeyValue],
    shown: Shown,
    notation: Notation,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let terminal = std::io::stdout().is_terminal();
    for kv in kvs {
        if shown != Shown::Values {
            write_line(&kv.key, notation, terminal.then_some(one_line), out)?;
        }
        if shown != Shown::Keys {
            write_line(&kv.value, notation, terminal.then_some(legible), out)?;
        }
    }
    Ok(())
}

/// Writes bytes and a line break: in a notation, else as `shown` formats them, else as they are.
fn write_line(
    bytes: &[u8],
    notation: Notation,
    shown: Option<fn(&[u8]) -> String>,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    match (notation.write(bytes), shown) {
        (Some(text), _) => writeln!(out, "{text}"),
        (None, Some(shown)) => writeln!(out, "{}", shown(bytes)),
        (None, None) => out.write_all(bytes).and_then(|()| out.write_all(b"\n")),
    }
}

/// Text as it is. Bytes that would confuse a terminal, and text that looks like their quoted form, in double quotes
/// with escapes, which the shell can read.
fn legible(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().all(|c| !c.is_control() || c == '\n' || c == '\t') && !seems_quoted(text) => {
            text.to_owned()
        }
        _ => words::quoted(bytes),
    }
}

/// The same, but always on one line.
fn one_line(bytes: &[u8]) -> String {
    if bytes.contains(&b'\n') || bytes.contains(&b'\t') { words::quoted(bytes) } else { legible(bytes) }
}

/// Whether the text could be mistaken for the output of [`words::quoted`].
fn seems_quoted(text: &str) -> bool {
    text.starts_with('"') && text.contains('\\')
}

pub(crate) fn write_table(kvs: &[KeyValue], notation: Notation, out: &mut dyn Write) -> std::io::Result<()> {
    let cell = |bytes: &[u8]| notation.write(bytes).unwrap_or_else(|| one_line(bytes));
    let mut table = Table::new(&["KEY", "VALUE", "VERSION", "CREATED", "MODIFIED", "LEASE"]);
    for kv in kvs {
        let lease = if kv.lease == 0 { "-".to_owned() } else { format!("{:016x}", kv.lease) };
        table.row([
            cell(&kv.key),
            cell(&kv.value),
            kv.version.to_string(),
            kv.create_revision.to_string(),
            kv.mod_revision.to_string(),
            lease,
        ]);
    }
    table.write(out)
}

pub(crate) fn pairs(kvs: &[KeyValue], notation: Notation) -> Value {
    kvs.iter().map(|kv| pair(kv, notation)).collect()
}

/// A pair as JSON.
pub(crate) fn pair(kv: &KeyValue, notation: Notation) -> Value {
    let mut object = Map::new();
    put_bytes(&mut object, "key", "key_encoding", &kv.key, notation);
    put_bytes(&mut object, "value", "encoding", &kv.value, notation);
    object.insert("create_revision".to_owned(), json!(kv.create_revision));
    object.insert("mod_revision".to_owned(), json!(kv.mod_revision));
    object.insert("version".to_owned(), json!(kv.version));
    if kv.lease != 0 {
        object.insert("lease".to_owned(), json!(format!("{:016x}", kv.lease)));
    }
    Value::Object(object)
}

/// Keys as JSON, in the form of a pair's key.
pub(crate) fn keys(keys: &[bytes::Bytes], notation: Notation) -> Value {
    keys.iter().map(|bytes| key(bytes, notation)).collect()
}

/// A key as JSON.
pub(crate) fn key(bytes: &[u8], notation: Notation) -> Value {
    let mut object = Map::new();
    put_bytes(&mut object, "key", "key_encoding", bytes, notation);
    Value::Object(object)
}

fn put_bytes(object: &mut Map<String, Value>, name: &str, encoding: &str, bytes: &[u8], notation: Notation) {
    let (text, encoded) = match (notation.write(bytes), std::str::from_utf8(bytes)) {
        (Some(text), _) => (text, notation.name()),
        (None, Ok(text)) => (text.to_owned(), None),
        (None, Err(_)) => (STANDARD.encode(bytes), Some("base64")),
    };
    object.insert(name.to_owned(), json!(text));
    if let Some(encoded) = encoded {
        object.insert(encoding.to_owned(), json!(encoded));
    }
}

pub(crate) fn write_json(value: &Value, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "{value}")
}

/// A size for people, such as `1.5 MiB`.
pub(crate) fn human_size(bytes: i64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut amount, mut unit) = (bytes.max(0) as f64, 0);
    while amount >= 1024.0 && unit + 1 < units.len() {
        (amount, unit) = (amount / 1024.0, unit + 1);
    }
    if unit == 0 { format!("{amount:.0} B") } else { format!("{amount:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &'static [u8], value: &'static [u8]) -> KeyValue {
        KeyValue { key: key.into(), value: value.into(), version: 1, ..KeyValue::default() }
    }

    #[test]
    fn json_has_texts_as_texts_and_bytes_as_base64() {
        let text = pair(&kv(b"k", "größer".as_bytes()), Notation::default());
        assert_eq!(text["value"], "größer");
        assert_eq!(text.get("encoding"), None);
        let bytes = pair(&kv(&[0xff], &[0xfe, 0x00]), Notation::default());
        assert_eq!((&bytes["key"], &bytes["key_encoding"]), (&json!("/w=="), &json!("base64")));
        assert_eq!((&bytes["value"], &bytes["encoding"]), (&json!("/gA="), &json!("base64")));
    }

    #[test]
    fn plain_is_byte_for_byte_where_no_terminal_reads() {
        let mut out = Vec::new();
        write_plain(&[kv(b"k", &[0xff, 0x1b])], Shown::Both, Notation::default(), &mut out).expect("memory takes it");
        assert_eq!(out, [b'k', b'\n', 0xff, 0x1b, b'\n']);
    }

    #[test]
    fn what_a_terminal_shows_can_not_be_taken_for_anything_else() {
        let shown = [
            (&b"k"[..], "k"),
            (b"\xff\x1b", r#""\xff\x1b""#),
            (br#""\xff\x1b""#, r#""\"\\xff\\x1b\"""#),
            (br"\xff", r"\xff"),
            (br#""json""#, r#""json""#),
            ("größer\u{9b}".as_bytes(), r#""größer\xc2\x9b""#),
        ];
        for (bytes, text) in shown {
            assert_eq!((legible(bytes), one_line(bytes)), (text.to_owned(), text.to_owned()));
        }
        assert_eq!((legible(b"a\nb\tc"), one_line(b"a\nb\tc")), ("a\nb\tc".to_owned(), r#""a\nb\tc""#.to_owned()));
    }

    #[test]
    fn sizes_are_legible() {
        assert_eq!([0, 1023, 1024, 1_572_864].map(human_size), ["0 B", "1023 B", "1.0 KiB", "1.5 MiB"]);
    }
}
