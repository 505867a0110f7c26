//! Catches panics, so that a search can go on and report the assertion that failed.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// A caught panic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Panic {
    /// The file that it came from.
    pub(crate) file: String,
    /// Its message, in one line.
    pub(crate) said: String,
}

thread_local! {
    /// The file and message of this thread's panic, while one is expected.
    static SAID: RefCell<Option<Option<(String, String)>>> = const { RefCell::new(None) };
}

/// Runs `work`. If it panics, returns the panic and prints nothing.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Panic> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let file = info.location().map_or(String::new(), |location| location.file().replace('\\', "/"));
            let said = info.payload_as_str().unwrap_or("no reason given").to_owned();
            let expected = SAID.with_borrow_mut(|slot| slot.as_mut().map(|slot| *slot = Some((file, said))).is_some());
            if !expected {
                usual(info);
            }
        }));
    });
    SAID.set(Some(None));
    let outcome = catch_unwind(AssertUnwindSafe(work));
    let said = SAID.take().flatten();
    outcome.map_err(|_| {
        let (file, said) = said.unwrap_or_default();
        Panic { file, said: said.lines().map(str::trim).collect::<Vec<_>>().join("; ") }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_in_a_line() {
        assert_eq!(caught(|| 7), Ok(7));
        let panic = caught(|| panic!("n1\n  halts")).expect_err("it panics");
        assert_eq!(panic.said, "n1; halts");
        assert!(panic.file.ends_with("panics.rs"), "{}", panic.file);
    }
}
