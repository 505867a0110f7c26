//! A transaction as text, as etcdctl has it: compares, a blank line, what to do if they hold, a blank line, what
//! to do if not.
//!
//! ```text
//! mod("k") > "0"
//! value("k") = "v"
//!
//! put k w
//!
//! get k
//! ```

use anyhow::{Context, bail};
use bowline_api::etcdserverpb as pb;
use clap::{Parser, Subcommand};
use pb::compare::{CompareResult, CompareTarget, TargetUnion};
use pb::request_op::Request;

use super::{DelArgs, GetArgs, PutArgs, words};

/// An operation of a transaction, in the words of the command line.
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

/// `put k v`, `get k --prefix`, `del k`.
///
/// # Errors
/// It is none of them.
pub(super) fn operation(line: &str) -> anyhow::Result<pb::RequestOp> {
    let words = words::split(line)?;
    let parsed = Line::try_parse_from(words).map_err(|error| {
        let text = error.render().to_string();
        let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        anyhow::anyhow!("{line:?} is no operation: {first}; allowed: get, put and del, as on the command line")
    })?;
    let request = match parsed.operation {
        Operation::Get(get) => Request::RequestRange(get.request()?),
        Operation::Del(del) => Request::RequestDeleteRange(del.request()?),
        Operation::Put(put) => {
            let value = put.value().with_context(|| format!("{line:?} has no value; allowed: put KEY VALUE"))?;
            Request::RequestPut(put.request(value.to_owned()))
        }
    };
    Ok(pb::RequestOp { request: Some(request) })
}

/// `mod("k") > "0"`; the quotes may be missing where there are no blanks.
///
/// # Errors
/// It is none.
pub(super) fn compare(line: &str) -> anyhow::Result<pb::Compare> {
    let allowed = "allowed: TARGET(\"KEY\") OP \"VALUE\", where TARGET is version, create, mod, value or lease, and \
                   OP is =, !=, < or >";
    let wrong = || format!("{line:?} is no compare; {allowed}");
    let (target, rest) = line.split_once('(').with_context(wrong)?;
    let (key, rest) = one_word(rest.trim_start(), ")").with_context(wrong)?;
    let rest = rest.trim_start().strip_prefix(')').with_context(wrong)?.trim_start();
    let operators = [
        ("!=", CompareResult::NotEqual),
        ("==", CompareResult::Equal),
        ("=", CompareResult::Equal),
        ("<", CompareResult::Less),
        (">", CompareResult::Greater),
    ];
    let found = operators.iter().find_map(|(text, result)| Some((rest.strip_prefix(text)?, *result)));
    let (rest, result) = found.with_context(wrong)?;
    let (operand, rest) = one_word(rest.trim_start(), "").with_context(wrong)?;
    if !rest.trim().is_empty() {
        bail!("{}", wrong());
    }
    let number = || operand.parse::<i64>().with_context(|| format!("{operand:?} is no whole number, in {line:?}"));
    let (target, union) = match target.trim() {
        "ver" | "version" => (CompareTarget::Version, TargetUnion::Version(number()?)),
        "c" | "create" | "create_revision" => (CompareTarget::Create, TargetUnion::CreateRevision(number()?)),
        "m" | "mod" | "mod_revision" => (CompareTarget::Mod, TargetUnion::ModRevision(number()?)),
        "val" | "value" => (CompareTarget::Value, TargetUnion::Value(operand.into())),
        "lease" => {
            let lease = i64::from_str_radix(&operand, 16);
            let lease = lease.with_context(|| format!("{operand:?} is no lease, a hexadecimal number, in {line:?}"))?;
            (CompareTarget::Lease, TargetUnion::Lease(lease))
        }
        _ => bail!("{}", wrong()),
    };
    Ok(pb::Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        target_union: Some(union),
        ..pb::Compare::default()
    })
}

/// A word, in quotes or up to a blank or one of `ends`, and what follows it.
fn one_word<'a>(text: &'a str, ends: &str) -> anyhow::Result<(String, &'a str)> {
    let end = match text.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let mut escaped = false;
            let closing = text[1..].char_indices().find(|(_, c)| {
                let closes = *c == quote && !escaped;
                escaped = *c == '\\' && quote == '"' && !escaped;
                closes
            });
            1 + closing.context("the quote has no end")?.0 + 1
        }
        Some(_) => text.find(|c: char| c.is_whitespace() || ends.contains(c)).unwrap_or(text.len()),
        None => bail!("a word is missing"),
    };
    let mut words = words::split(&text[..end])?;
    Ok((words.pop().context("a word is missing")?, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let wrong = ["", "mod", "mod(k", "mod(k) 3", "mod(k) = x", "size(k) = 3", "mod(k) = 3 4", "mod(\"k) = 3"];
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
        assert!(matches!(operation("del k").expect("well-formed").request, Some(Request::RequestDeleteRange(_))));
        for wrong in ["", "put k", "watch k", "get", "get --prefix", "del k --sometimes"] {
            assert!(operation(wrong).is_err(), "{wrong}");
        }
    }
}
