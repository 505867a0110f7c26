//! The file format of histories: JSON lines, one operation a line, in any order.
//!
//! ```json
//! {"client":1,"key":"x","write":"a","call":1000,"return":2500}
//! {"client":2,"key":"x","read":"a","call":2600,"return":2900}
//! {"client":1,"key":"x","write":"b","call":3000,"return":null}
//! {"client":2,"key":"x","read":null,"call":3100,"return":null}
//! ```
//!
//! | field | meaning |
//! |---|---|
//! | `client` | number of the client, 0 to 2^64 - 1 |
//! | `key` | the register, any string |
//! | `write` or `read` | exactly one of them: the string that was written or read; `read` may be `null` if the result is unknown |
//! | `call` | when it was asked, nanoseconds on a common clock, 0 to 2^64 - 1 |
//! | `return` | when it was answered, not before `call`; `null` if the outcome is unknown |
//!
//! All fields must be there, no others may. Empty lines are skipped.

use std::io::{self, BufRead, Read as _, Write};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Action, Operation};

/// The longest line that is read, in bytes, its newline not included.
pub const MAX_LINE_BYTES: usize = 1 << 20;
/// The most operations that are read.
pub const MAX_OPERATIONS: usize = 10_000_000;

/// Why a history could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file could not be read.
    #[error("line {line}: {source}")]
    Io {
        /// Counted from 1.
        line: usize,
        /// What the system said.
        source: io::Error,
    },
    /// A line is longer than [`MAX_LINE_BYTES`].
    #[error("line {line}: longer than {MAX_LINE_BYTES} bytes")]
    LongLine {
        /// Counted from 1.
        line: usize,
    },
    /// There are more operations than [`MAX_OPERATIONS`].
    #[error("line {line}: more than {MAX_OPERATIONS} operations")]
    TooManyOperations {
        /// Counted from 1.
        line: usize,
    },
    /// A line is no JSON object.
    #[error("line {line}: not a JSON object: {reason}")]
    NotAnObject {
        /// Counted from 1.
        line: usize,
        /// What the JSON reader found.
        reason: String,
    },
    /// A field is missing, unknown, or has a value that is not allowed.
    #[error("line {line}: field `{field}`: {reason}")]
    Field {
        /// Counted from 1.
        line: usize,
        /// Its name, cut if it is long.
        field: String,
        /// What is wrong, and what is allowed.
        reason: String,
    },
}

/// Reads a history to its end.
///
/// # Errors
///
/// The first line that can't be read, or isn't an operation, or goes over a bound.
pub fn read_history(mut input: impl BufRead) -> Result<Vec<Operation>, HistoryError> {
    let mut history = Vec::new();
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let read = (&mut input)
            .take(MAX_LINE_BYTES as u64 + 1)
            .read_until(b'\n', &mut text)
            .map_err(|source| HistoryError::Io { line, source })?;
        if read == 0 {
            break;
        }
        if text.len() > MAX_LINE_BYTES && text.last() != Some(&b'\n') {
            return Err(HistoryError::LongLine { line });
        }
        if text.trim_ascii().is_empty() {
            continue;
        }
        if history.len() == MAX_OPERATIONS {
            return Err(HistoryError::TooManyOperations { line });
        }
        history.push(parse(&text, line)?);
    }
    Ok(history)
}

/// Writes a history, one line for each operation.
///
/// # Errors
///
/// When `output` can't be written.
pub fn write_history(mut output: impl Write, history: &[Operation]) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        client: u64,
        key: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        write: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        read: Option<Option<&'a str>>,
        call: u64,
        #[serde(rename = "return")]
        ret: Option<u64>,
    }
    for operation in history {
        let (write, read) = match &operation.action {
            Action::Write(value) => (Some(value.as_str()), None),
            Action::Read(value) => (None, Some(value.as_deref())),
        };
        let line = Line {
            client: operation.client,
            key: &operation.key,
            write,
            read,
            call: operation.call,
            ret: operation.ret,
        };
        serde_json::to_writer(&mut output, &line)?;
        output.write_all(b"\n")?;
    }
    output.flush()
}

fn parse(text: &[u8], line: usize) -> Result<Operation, HistoryError> {
    let object: Map<String, Value> =
        serde_json::from_slice(text).map_err(|error| HistoryError::NotAnObject { line, reason: error.to_string() })?;
    let mut fields = Fields { object, line };
    let operation = Operation {
        client: fields.number("client")?,
        key: fields.string("key")?,
        action: fields.action()?,
        call: fields.number("call")?,
        ret: match fields.take("return")? {
            Value::Null => None,
            value => Some(fields.number_in("return", &value)?),
        },
    };
    if let Some(unknown) = fields.object.keys().next() {
        let allowed = "unknown; allowed are client, key, write, read, call, return";
        return Err(fields.error(unknown, allowed));
    }
    if operation.ret.is_some_and(|ret| ret < operation.call) {
        return Err(fields.error("return", "is before `call`"));
    }
    Ok(operation)
}

/// What is left of a line's object.
struct Fields {
    object: Map<String, Value>,
    line: usize,
}

impl Fields {
    fn error(&self, field: &str, reason: impl Into<String>) -> HistoryError {
        HistoryError::Field {
            line: self.line,
            field: field.chars().take(40).flat_map(char::escape_debug).collect(),
            reason: reason.into(),
        }
    }

    fn take(&mut self, field: &str) -> Result<Value, HistoryError> {
        self.object.remove(field).ok_or_else(|| self.error(field, "missing"))
    }

    fn string(&mut self, field: &str) -> Result<String, HistoryError> {
        match self.take(field)? {
            Value::String(text) => Ok(text),
            other => Err(self.error(field, format!("is {}, must be a string", kind(&other)))),
        }
    }

    fn number(&mut self, field: &str) -> Result<u64, HistoryError> {
        let value = self.take(field)?;
        self.number_in(field, &value)
    }

    fn number_in(&self, field: &str, value: &Value) -> Result<u64, HistoryError> {
        let shown = match value {
            Value::Number(number) => number.to_string(),
            other => kind(other).to_owned(),
        };
        let reason = format!("is {shown}, must be a whole number from 0 to {}", u64::MAX);
        value.as_u64().ok_or_else(|| self.error(field, reason))
    }

    fn action(&mut self) -> Result<Action, HistoryError> {
        match (self.object.contains_key("write"), self.object.get("read")) {
            (true, Some(_)) => Err(self.error("read", "can't be there together with `write`")),
            (true, None) => Ok(Action::Write(self.string("write")?)),
            (false, Some(Value::Null)) => {
                self.take("read")?;
                Ok(Action::Read(None))
            }
            (false, Some(_)) => Ok(Action::Read(Some(self.string("read")?))),
            (false, None) => Err(self.error("write", "missing, and there is no `read` either")),
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
