//! The file format of histories of keys, one line for each operation:
//!
//! ```json
//! {"client":1,"key":"x","request":{"put":"a"},"answer":"done","revision":2,"call":10,"return":20}
//! {"client":2,"key":"x","request":{"swap":{"expect":"a","value":"b"}},"answer":"unknown","call":15,"return":null}
//! {"client":1,"key":"x","request":"get","answer":{"found":"b"},"revision":3,"mod_revision":3,"call":30,"return":40}
//! {"client":1,"key":"x","request":"delete","answer":{"found":"b"},"revision":4,"call":50,"return":60}
//! ```

use std::io::BufRead;

use super::Operation;
use crate::history::{HistoryError, check_times, read_lines};

/// Reads a history to its end.
///
/// # Errors
/// A line can't be read, isn't an operation, or exceeds a limit; the error names the first one.
pub fn read_history(input: impl BufRead) -> Result<Vec<Operation>, HistoryError> {
    read_lines(input, |text, line| {
        let operation: Operation = serde_json::from_slice(text)
            .map_err(|error| HistoryError::NotAnObject { line, reason: error.to_string() })?;
        check_times(operation.call, operation.ret, line)?;
        Ok(operation)
    })
}
