//! How an error is told to a user.

/// An error and its causes, `: ` between them. Many errors name their cause themselves; what was said
/// already is not said twice.
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
