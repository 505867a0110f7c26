//! Reads a command line as Go's package `flag` does, and the variables `ETCD_*`.

use std::collections::BTreeMap;

use anyhow::bail;
use bowline_server::config::parse_duration;

use super::flags::{Flag, Kind, all, find};

/// A value that the user gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    /// The flag or the variable, as errors name it.
    pub(super) name: String,
    pub(super) text: String,
}

/// What the user gave.
#[derive(Debug, Default)]
pub(super) struct Given {
    values: BTreeMap<&'static str, Value>,
    /// Whether the help is asked for.
    pub(super) help: bool,
    /// Variables that are no flag of etcd.
    pub(super) unknown: Vec<String>,
}

impl Given {
    /// Reads the words of a command line. The last value of a flag counts.
    ///
    /// # Errors
    /// A word is no flag of etcd, or its value is not of the flag's kind.
    pub(super) fn flags(words: &[String]) -> anyhow::Result<Given> {
        let (mut given, mut words) = (Given::default(), words.iter());
        while let Some(word) = words.next() {
            let Some(rest) = word.strip_prefix('-').filter(|rest| !rest.is_empty()) else { stray(word)? };
            let rest = rest.strip_prefix('-').unwrap_or(rest);
            if rest.is_empty() {
                match words.next() {
                    Some(word) => stray(word)?,
                    None => break,
                }
            }
            if rest.starts_with(['-', '=']) {
                bail!("bad flag syntax: {word}");
            }
            let (name, value) = rest.split_once('=').map_or((rest, None), |(name, value)| (name, Some(value)));
            let Some(flag) = find(name) else {
                if matches!(name, "h" | "help") {
                    given.help = true;
                    return Ok(given);
                }
                bail!("flag provided but not defined: -{name}; `bowline etcd --help` lists all flags");
            };
            let text = match value {
                Some(value) => value,
                None if flag.stands_alone() => "true",
                None => words.next().ok_or_else(|| anyhow::anyhow!("flag needs an argument: -{name}"))?,
            };
            given.add(flag, format!("--{name}"), text)?;
        }
        Ok(given)
    }

    /// Adds the variables. As in etcd, an empty one counts as none, and one whose flag is given is an error.
    ///
    /// # Errors
    /// A variable's flag is given, too, or its value is not of the flag's kind.
    pub(super) fn add_variables(&mut self, variables: impl Iterator<Item = (String, String)>) -> anyhow::Result<()> {
        for (name, text) in variables.filter(|(name, _)| name.starts_with("ETCD_")) {
            let Some(flag) = all().find(|flag| flag.variable() == name) else {
                self.unknown.push(name);
                continue;
            };
            if let Some(given) = self.values.get(flag.name) {
                bail!(
                    "conflicting environment variable {name:?} is shadowed by corresponding command-line flag {}: unset \
                     the variable, or leave the flag out",
                    given.name
                );
            }
            if !text.is_empty() {
                self.add(flag, name, &text)?;
            }
        }
        Ok(())
    }

    /// The value of a flag, if it was given.
    pub(super) fn get(&self, flag: &Flag) -> Option<&Value> {
        self.values.get(flag.name)
    }

    fn add(&mut self, flag: &'static Flag, name: String, text: &str) -> anyhow::Result<()> {
        let text = normal(flag, &name, text)?;
        self.values.insert(flag.name, Value { name, text });
        Ok(())
    }
}

/// The value as text in its normal form, if it is of the flag's kind.
pub(super) fn normal(flag: &Flag, name: &str, text: &str) -> anyhow::Result<String> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (normal, allowed) = match flag.kind {
        Kind::Text | Kind::Obsolete => (Some(text), ""),
        // As Go's strconv.ParseBool.
        Kind::Bool => match text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => (Some("true"), ""),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => (Some("false"), ""),
            _ => (None, "true or false"),
        },
        Kind::Number => (Some(text).filter(|text| digits(text)), "a whole number"),
        Kind::Integer => (Some(text).filter(|text| digits(text.strip_prefix('-').unwrap_or(text))), "a whole number"),
        Kind::Time => {
            (Some(text).filter(|text| *text == "0" || parse_duration(text).is_some()), "a time such as 1m30s")
        }
    };
    let Some(normal) = normal else { bail!("invalid value {text:?} for {name}; allowed: {allowed}") };
    Ok(normal.to_owned())
}

/// A word that is no flag.
fn stray<T>(word: &str) -> anyhow::Result<T> {
    if matches!(word, "gateway" | "grpc-proxy") {
        bail!("etcd {word} does not exist in Bowline: clients take several endpoints, or use a TCP load balancer");
    }
    bail!("{word:?} is not a valid flag; `bowline etcd --help` lists all flags")
}
