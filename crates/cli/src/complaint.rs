//! The text of an error for a user.

/// An error and its causes, separated by `: `. A cause that the error before it already includes is left out.
pub(crate) fn tell(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}
