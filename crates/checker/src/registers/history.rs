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
//! All fields are required, and no others are allowed.

use std::io::BufRead;

use serde_json::{Map, Value};

use super::{Action, Operation};
use crate::history::{HistoryError, check_times, read_lines};

/// Reads a history to its end.
///
/// # Errors
/// A line can't be read, isn't an operation, or exceeds a limit; the error names the first one.
pub fn read_history(input: impl BufRead) -> Result<Vec<Operation>, HistoryError> {
    read_lines(input, parse)
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
    check_times(operation.call, operation.ret, line)?;
    Ok(operation)
}

/// The fields of a line's object that are not parsed yet.
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
