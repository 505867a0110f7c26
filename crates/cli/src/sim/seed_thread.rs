//! Runs each seed on its own thread, so that a stack overflow or an uncaught panic, which ends the process, names the
//! seed on standard error.

use crate::out::remark;
use std::thread;

/// Bytes of stack: far more than any replica needs, so that only endless recursion overflows it.
const STACK: usize = 64 << 20;

/// Runs `work` on a thread named after the seed and `what`, and waits for it. The runtime prints the name of a thread
/// whose stack overflows.
pub(crate) fn on_its_own<T: Send>(seed: u64, what: &str, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let name = format!("seed {seed}{what}");
        let thread = thread::Builder::new().name(name.clone()).stack_size(STACK);
        let thread = thread.spawn_scoped(scope, work).expect("the system has a thread to give");
        thread.join().unwrap_or_else(|panic| {
            remark!("{name}: the simulator itself panicked: {}", words(&*panic));
            std::panic::resume_unwind(panic)
        })
    })
}

fn words(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deep(levels: u64) -> u64 {
        let room = std::hint::black_box([levels; 512]);
        if levels == 0 { room[0] } else { deep(levels - 1) + std::hint::black_box(room)[1] }
    }

    #[test]
    fn a_seed_runs_on_a_thread_of_its_name_with_room() {
        let name = on_its_own(17, ", again", || {
            assert_eq!(deep(2_000), 2_000 * 2_001 / 2, "eight megabytes fit");
            thread::current().name().map(str::to_owned)
        });
        assert_eq!(name.as_deref(), Some("seed 17, again"));
    }

    /// Ends the process, for the test below.
    #[test]
    #[ignore = "it ends the process"]
    fn overflows() {
        on_its_own(4711, " of the test", || deep(u64::MAX));
    }

    #[test]
    fn a_seed_that_exhausts_its_stack_is_named() {
        let me = std::env::current_exe().expect("a test knows its own file");
        let names = ["--exact", "sim::seed_thread::tests::overflows", "--ignored", "--nocapture"];
        let died = std::process::Command::new(me).args(names).output().expect("it starts");
        let said = String::from_utf8_lossy(&died.stderr);
        assert!(!died.status.success() && said.contains("seed 4711 of the test"), "{said}");
    }
}
