//! Parses a transaction in etcdctl's format: comparisons, a blank line, the operations to run if they hold, a blank
//! line, the operations to run otherwise.
//!
//! ```text
//! mod("k") > "0"
//! value("k") = "v"
//!
//! put k w
//!
//! get k
//! ```

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use anyhow::{Context, bail};
use bowline_api::etcdserverpb as pb;
use clap::{Parser, Subcommand};
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;

use super::words::{self, shortened};
use super::{DelArgs, GetArgs, Notation, PutArgs};

/// An operation of a transaction, with the arguments of the command line.
#[derive(Parser)]
#[command(no_binary_name = true, disable_help_subcommand = true, disable_help_flag = true)]
struct Line {
    #[command(subcommand)]
    operation: Operation,
}

#[derive(Subcommand)]
enum Operation {
    Get(GetArgs),
    Put(PutArgs),
    Del(DelArgs),
}

/// Parses `put k v`, `get k --prefix` or `del k`. Keys and values are in the notation `default` if the line names none.
///
/// # Errors
/// The line is not an operation.
pub(super) fn operation(line: &[u8], default: Notation) -> anyhow::Result<pb::RequestOp> {
    let wrong =
        || format!("{} is not an operation; allowed: get, put and del, as on the command line", shortened(line));
    let words = words::split(line).with_context(wrong)?;
    let parsed = Line::try_parse_from(words).map_err(|error| anyhow::anyhow!("{}", words::in_one_line(&error)));
    let request = match parsed.with_context(wrong)?.operation {
        Operation::Get(get) => Request::RequestRange(get.request(default).with_context(wrong)?),
        Operation::Del(del) => Request::RequestDeleteRange(del.request(default).with_context(wrong)?),
        Operation::Put(put) => Request::RequestPut(put.on_a_line(default).with_context(wrong)?.request),
    };
    Ok(pb::RequestOp { request: Some(request) })
}

/// Parses `mod("k") > "0"`. Words without whitespace need no quotes. Key and value are in `notation`.
///
/// # Errors
/// The line is not a comparison.
pub(super) fn compare(line: &[u8], notation: Notation) -> anyhow::Result<pb::Compare> {
    let wrong = || {
        format!(
            "{} is not a comparison; allowed: TARGET(\"KEY\") OP \"VALUE\", where TARGET is version, create, mod, value or \
             lease, and OP is =, !=, < or >",
            shortened(line)
        )
    };
    let open = line.iter().position(|byte| *byte == b'(').with_context(wrong)?;
    let (key, rest) = one_word(&line[open + 1..], b")").with_context(wrong)?;
    let rest = rest.trim_ascii_start().strip_prefix(b")").with_context(wrong)?.trim_ascii_start();
    let operators: [(&[u8], _); 5] = [
        (b"!=", CompareResult::NotEqual),
        (b"==", CompareResult::Equal),
        (b"=", CompareResult::Equal),
        (b"<", CompareResult::Less),
        (b">", CompareResult::Greater),
    ];
    let found = operators.iter().find_map(|(text, result)| Some((rest.strip_prefix(*text)?, *result)));
    let (rest, result) = found.with_context(wrong)?;
    let (operand, rest) = one_word(rest, b"").with_context(wrong)?;
    if !rest.trim_ascii().is_empty() {
        bail!("{}", wrong());
    }
    let (target, union) = target(line[..open].trim_ascii(), &operand, notation).with_context(wrong)?;
    let key = notation.read("KEY", &key).with_context(wrong)?;
    let (result, target) = (result.into(), target.into());
    Ok(pb::Compare { result, target, key, target_union: Some(union), ..pb::Compare::default() })
}

/// The target and the operand of a comparison.
fn target(name: &[u8], operand: &OsStr, notation: Notation) -> anyhow::Result<(CompareTarget, TargetUnion)> {
    let shown = || shortened(operand.as_bytes());
    let number = || {
        let number = operand.to_str().and_then(|text| text.parse::<i64>().ok());
        number.with_context(|| format!("{} is not a whole number", shown()))
    };
    Ok(match name {
        b"ver" | b"version" => (CompareTarget::Version, TargetUnion::Version(number()?)),
        b"c" | b"create" | b"create_revision" => (CompareTarget::Create, TargetUnion::CreateRevision(number()?)),
        b"m" | b"mod" | b"mod_revision" => (CompareTarget::Mod, TargetUnion::ModRevision(number()?)),
        b"val" | b"value" => (CompareTarget::Value, TargetUnion::Value(notation.read("VALUE", operand)?)),
        b"lease" => {
            let lease = operand.to_str().and_then(|text| i64::from_str_radix(text, 16).ok());
            let lease = lease.with_context(|| format!("{} is not a lease ID, which is hexadecimal", shown()))?;
            (CompareTarget::Lease, TargetUnion::Lease(lease))
        }
        other => bail!("{} is not a target", shortened(other)),
    })
}

/// The first word, in quotes or up to whitespace or one of `ends`, and the rest.
fn one_word<'a>(text: &'a [u8], ends: &[u8]) -> anyhow::Result<(OsString, &'a [u8])> {
    let text = text.trim_ascii_start();
    let (word, rest) = words::word(text, ends)?;
    if rest.len() == text.len() {
        bail!("a key or a value is missing");
    }
    Ok((OsString::from_vec(word), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(line: &str) -> anyhow::Result<pb::Compare> {
        super::compare(line.as_bytes(), Notation::default())
    }

    fn operation(line: &str) -> anyhow::Result<pb::RequestOp> {
        super::operation(line.as_bytes(), Notation::default())
    }

    #[test]
    fn compares_are_read_as_etcdctl_writes_them() {
        let read = compare(r#"mod("a \"b\")") > "17""#).expect("well-formed");
        assert_eq!(read.key, "a \"b\")");
        assert_eq!((read.result(), read.target()), (CompareResult::Greater, CompareTarget::Mod));
        assert_eq!(read.target_union, Some(TargetUnion::ModRevision(17)));
        let read = compare("value(k)!='x y'").expect("well-formed");
        assert_eq!((read.key.as_ref(), read.result()), (&b"k"[..], CompareResult::NotEqual));
        assert_eq!(read.target_union, Some(TargetUnion::Value("x y".into())));
        assert_eq!(compare("lease(k) = ff").expect("well-formed").target_union, Some(TargetUnion::Lease(255)));
        let read = compare(r#" value ( "\xff" ) = "\xfe\n" "#).expect("well-formed");
        assert_eq!(read.key, b"\xff"[..]);
        assert_eq!(read.target_union, Some(TargetUnion::Value(b"\xfe\n"[..].into())));
        let wrong = [
            "",
            "mod",
            "mod(k",
            "mod(k) 3",
            "mod(k) = x",
            "size(k) = 3",
            "mod(k) = 3 4",
            "mod(\"k) = 3",
            "mod() = 3",
            "mod(k) =",
        ];
        for wrong in wrong {
            assert!(compare(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn operations_are_words_of_the_command_line() {
        let read = operation("get k --prefix --limit 3").expect("well-formed").request;
        let Some(Request::RequestRange(range)) = read else { panic!("a range, not {read:?}") };
        assert_eq!((range.key.as_ref(), range.range_end.as_ref(), range.limit), (&b"k"[..], &b"l"[..], 3));
        let read = operation(r#"put k "a b""#).expect("well-formed").request;
        let Some(Request::RequestPut(put)) = read else { panic!("a put, not {read:?}") };
        assert_eq!(put.value, "a b");
        let read = operation(r"put --hex ff00 fe").expect("well-formed").request;
        let Some(Request::RequestPut(put)) = read else { panic!("a put, not {read:?}") };
        assert_eq!((put.key.as_ref(), put.value.as_ref()), (&b"\xff\x00"[..], &b"\xfe"[..]));
        assert!(matches!(operation("del k").expect("well-formed").request, Some(Request::RequestDeleteRange(_))));
        for wrong in ["", "put k", "watch k", "get", "get --prefix", "del k --sometimes", "put --hex k v", "put k \"v"]
        {
            assert!(operation(wrong).is_err(), "{wrong}");
        }
    }
}
