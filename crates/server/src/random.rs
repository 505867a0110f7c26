//! Random numbers of the system.

/// A random number, which makes members and their timing differ.
///
/// # Panics
/// The system has no random numbers, which does not happen after it has started.
pub(crate) fn random() -> u64 {
    getrandom::u64().expect("a system that runs programs has random numbers")
}
