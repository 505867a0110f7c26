//! Files of histories: JSON lines, one operation a line, in any order. Empty lines are skipped.
//!
//! Each checker has its own line format: [`registers::read_history`](crate::registers::read_history),
//! [`keys::read_history`](crate::keys::read_history).

use std::io::{self, BufRead, Read as _, Write};

use serde::Serialize;

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
    /// A line is not a JSON object.
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
        /// Its name, truncated if it is long.
        field: String,
        /// What is wrong, and what is allowed.
        reason: String,
    },
}

/// Reads a history to its end. `parse` gets each line and its number.
pub(crate) fn read_lines<O>(
    mut input: impl BufRead,
    parse: impl Fn(&[u8], usize) -> Result<O, HistoryError>,
) -> Result<Vec<O>, HistoryError> {
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

/// Refuses an operation that was answered before it was asked.
pub(crate) fn check_times(call: u64, ret: Option<u64>, line: usize) -> Result<(), HistoryError> {
    if ret.is_some_and(|ret| ret < call) {
        let (field, reason) = ("return".to_owned(), "is before `call`".to_owned());
        return Err(HistoryError::Field { line, field, reason });
    }
    Ok(())
}

/// Writes a history, one line for each operation.
///
/// # Errors
/// When `output` can't be written.
pub fn write_history<O: Serialize>(mut output: impl Write, history: &[O]) -> io::Result<()> {
    for operation in history {
        serde_json::to_writer(&mut output, operation)?;
        output.write_all(b"\n")?;
    }
    output.flush()
}
