//! How answers are written: for people, for programs, or byte for byte.

use std::io::{IsTerminal, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bowline_api::mvccpb::KeyValue;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use super::Table;

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people, and for scripts that want values.
    #[default]
    Plain,
    /// Columns.
    Table,
    /// One JSON value. Texts are texts; bytes that are no UTF-8 are base64, and then "encoding" says so.
    Json,
    /// Values only, byte for byte, nothing between them and no newline at the end.
    Raw,
}

#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct OutputArgs {
    /// The form of the answer.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
    /// Short for -o raw: values byte for byte.
    #[arg(long, conflicts_with = "output")]
    raw: bool,
}

impl OutputArgs {
    pub(crate) fn of(format: Format) -> OutputArgs {
        OutputArgs { output: format, raw: false }
    }

    pub(crate) fn format(self) -> Format {
        if self.raw { Format::Raw } else { self.output }
    }
}

/// What is shown of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    Keys,
    Values,
    Both,
}

/// Writes pairs, a line for each key and each value; byte for byte, unless a terminal would suffer.
pub(crate) fn write_plain(kvs: &[KeyValue], shown: Shown, out: &mut dyn Write) -> std::io::Result<()> {
    for kv in kvs {
        if shown != Shown::Values {
            write_line(&kv.key, out)?;
        }
        if shown != Shown::Keys {
            write_line(&kv.value, out)?;
        }
    }
    Ok(())
}

fn write_line(bytes: &[u8], out: &mut dyn Write) -> std::io::Result<()> {
    if std::io::stdout().is_terminal() {
        return writeln!(out, "{}", legible(bytes));
    }
    out.write_all(bytes)?;
    out.write_all(b"\n")
}

/// Text as it is; what would confuse a terminal as escapes.
pub(crate) fn legible(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

pub(crate) fn write_table(kvs: &[KeyValue], out: &mut dyn Write) -> std::io::Result<()> {
    let mut table = Table::new(&["KEY", "VALUE", "VERSION", "CREATED", "MODIFIED", "LEASE"]);
    for kv in kvs {
        let lease = if kv.lease == 0 { "-".to_owned() } else { format!("{:016x}", kv.lease) };
        table.row([
            one_line(&kv.key),
            one_line(&kv.value),
            kv.version.to_string(),
            kv.create_revision.to_string(),
            kv.mod_revision.to_string(),
            lease,
        ]);
    }
    table.write(out)
}

fn one_line(bytes: &[u8]) -> String {
    legible(bytes).replace('\n', "\\n").replace('\t', "\\t")
}

pub(crate) fn pairs(kvs: &[KeyValue]) -> Value {
    kvs.iter().map(pair).collect()
}

/// A pair as JSON.
pub(crate) fn pair(kv: &KeyValue) -> Value {
    let mut object = Map::new();
    put_bytes(&mut object, "key", "key_encoding", &kv.key);
    put_bytes(&mut object, "value", "encoding", &kv.value);
    object.insert("create_revision".to_owned(), json!(kv.create_revision));
    object.insert("mod_revision".to_owned(), json!(kv.mod_revision));
    object.insert("version".to_owned(), json!(kv.version));
    if kv.lease != 0 {
        object.insert("lease".to_owned(), json!(format!("{:016x}", kv.lease)));
    }
    Value::Object(object)
}

/// Keys as JSON, each as in a pair.
pub(crate) fn keys(keys: &[bytes::Bytes]) -> Value {
    let key = |key: &bytes::Bytes| {
        let mut object = Map::new();
        put_bytes(&mut object, "key", "key_encoding", key);
        Value::Object(object)
    };
    keys.iter().map(key).collect()
}

fn put_bytes(object: &mut Map<String, Value>, name: &str, encoding: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            object.insert(name.to_owned(), json!(text));
        }
        Err(_) => {
            object.insert(name.to_owned(), json!(STANDARD.encode(bytes)));
            object.insert(encoding.to_owned(), json!("base64"));
        }
    }
}

pub(crate) fn write_json(value: &Value, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "{value}")
}

/// Bytes as people write them: `1.5 MiB`.
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
        let text = pair(&kv(b"k", "größer".as_bytes()));
        assert_eq!(text["value"], "größer");
        assert_eq!(text.get("encoding"), None);
        let bytes = pair(&kv(&[0xff], &[0xfe, 0x00]));
        assert_eq!((&bytes["key"], &bytes["key_encoding"]), (&json!("/w=="), &json!("base64")));
        assert_eq!((&bytes["value"], &bytes["encoding"]), (&json!("/gA="), &json!("base64")));
    }

    #[test]
    fn plain_is_byte_for_byte_where_no_terminal_reads() {
        let mut out = Vec::new();
        write_plain(&[kv(b"k", &[0xff, 0x1b])], Shown::Both, &mut out).expect("memory takes it");
        assert_eq!(out, [b'k', b'\n', 0xff, 0x1b, b'\n']);
        assert_eq!(legible(&[0xff, 0x1b]), "\\xff\\x1b");
    }

    #[test]
    fn sizes_are_legible() {
        assert_eq!([0, 1023, 1024, 1_572_864].map(human_size), ["0 B", "1023 B", "1.0 KiB", "1.5 MiB"]);
    }
}
