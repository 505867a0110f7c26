//! Random numbers of the system.

/// A random number: what a member draws to be told apart from others, or to be out of step with them.
///
/// # Panics
/// The system has none to give, which it always has once it has started.
pub(crate) fn random() -> u64 {
    getrandom::u64().expect("a system that runs programs has random numbers")
}
