//! A mutant may break an assertion, in the core or in an oracle: what it said, and whose it was.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use super::Check;

thread_local! {
    /// What the panic of this thread said, while one is expected.
    static SAID: RefCell<Option<Option<(String, String)>>> = const { RefCell::new(None) };
}

/// Runs `work`; if it panics, returns whose check that was and what it said. Nothing is printed.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, (Check, String)> {
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
        let line = said.lines().map(str::trim).collect::<Vec<_>>().join("; ");
        (whose(&file, &line), line)
    })
}

fn whose(file: &str, said: &str) -> Check {
    if file.contains("raft/src/") || said.contains(" halts: ") {
        Check::Assertion
    } else if file.ends_with("schedule.rs") || file.ends_with("drills.rs") {
        Check::Liveness
    } else {
        Check::Oracle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_and_its_owner_named() {
        assert_eq!(caught(|| 7), Ok(7));
        let (check, said) = caught(|| panic!("n1\n  halts")).expect_err("it panics");
        assert_eq!((check, said.as_str()), (Check::Oracle, "n1; halts"));
        assert_eq!(whose("crates/raft/src/log.rs", ""), Check::Assertion);
        assert_eq!(whose("crates/raft/tests/support/drills.rs", ""), Check::Liveness);
        assert_eq!(whose("crates/raft/tests/support/world.rs", "n1 halts: x"), Check::Assertion);
    }
}
