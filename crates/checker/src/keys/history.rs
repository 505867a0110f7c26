//! The file format of histories: JSON lines, one operation a line, in any order.
//!
//! ```json
//! {"client":1,"key":"x","request":{"put":"a"},"answer":"done","revision":2,"call":10,"return":20}
//! {"client":2,"key":"x","request":{"swap":{"expect":"a","value":"b"}},"answer":"unknown","call":15,"return":null}
//! {"client":1,"key":"x","request":"get","answer":{"found":"b"},"revision":3,"mod_revision":3,"call":30,"return":40}
//! {"client":1,"key":"x","request":"delete","answer":{"found":"b"},"revision":4,"call":50,"return":60}
//! ```

use std::io::{self, BufRead, Read as _, Write};

use super::Operation;
use crate::registers::{HistoryError, MAX_LINE_BYTES, MAX_OPERATIONS};

/// Reads a history to its end. Empty lines are skipped.
///
/// # Errors
/// The first line that can't be read, or isn't an operation, or goes over a bound.
pub fn read_history(mut input: impl BufRead) -> Result<Vec<Operation>, HistoryError> {
    let mut history = Vec::new();
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let mut bounded = (&mut input).take(MAX_LINE_BYTES as u64 + 1);
        let read = bounded.read_until(b'\n', &mut text).map_err(|source| HistoryError::Io { line, source })?;
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
        let operation: Operation = serde_json::from_slice(&text)
            .map_err(|error| HistoryError::NotAnObject { line, reason: error.to_string() })?;
        if operation.ret.is_some_and(|ret| ret < operation.call) {
            let (field, reason) = ("return".to_owned(), "is before `call`".to_owned());
            return Err(HistoryError::Field { line, field, reason });
        }
        history.push(operation);
    }
    Ok(history)
}

/// Writes a history, one line for each operation.
///
/// # Errors
/// When `output` can't be written.
pub fn write_history(mut output: impl Write, history: &[Operation]) -> io::Result<()> {
    for operation in history {
        serde_json::to_writer(&mut output, operation)?;
        output.write_all(b"\n")?;
    }
    output.flush()
}
