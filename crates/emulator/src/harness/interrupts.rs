//! Turns Ctrl-C and termination signals into a flag.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// While this value exists, SIGINT (Ctrl-C), SIGTERM and SIGHUP set a flag instead of ending the
/// process, so that replicas can be killed and files removed. Afterwards they end it again.
#[derive(Debug)]
pub struct Interrupts {
    watch: &'static Watch,
}

#[derive(Debug)]
struct Watch {
    came: Arc<AtomicBool>,
    /// The number of the last signal; 0 if none came.
    last: Arc<AtomicUsize>,
    /// Whether the signals should have their default effect.
    as_usual: Arc<AtomicBool>,
}

/// Handlers are installed once per process and never removed.
static WATCH: OnceLock<Watch> = OnceLock::new();

impl Interrupts {
    /// Watches from now on. Only one such value should exist at a time.
    ///
    /// # Errors
    ///
    /// The system refuses to install a handler.
    pub fn watch() -> io::Result<Interrupts> {
        if WATCH.get().is_none() {
            let watch = Watch { came: Arc::default(), last: Arc::default(), as_usual: Arc::default() };
            for signal in [SIGINT, SIGTERM, SIGHUP] {
                flag::register_conditional_default(signal, Arc::clone(&watch.as_usual))?;
                flag::register_usize(signal, Arc::clone(&watch.last), signal.unsigned_abs() as usize)?;
                flag::register(signal, Arc::clone(&watch.came))?;
            }
            // If another thread was first, these handlers set flags that nobody reads.
            let _ = WATCH.set(watch);
        }
        let watch = WATCH.get().expect("it was set above, and is never taken out");
        watch.came.store(false, Ordering::Relaxed);
        watch.last.store(0, Ordering::Relaxed);
        watch.as_usual.store(false, Ordering::Relaxed);
        Ok(Interrupts { watch })
    }

    /// The flag that becomes true at the first signal, for [`RunOptions::stop`](super::RunOptions::stop).
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.watch.came)
    }

    /// The number of the last signal that came; `None` if none has come.
    pub fn signal(&self) -> Option<i32> {
        i32::try_from(self.watch.last.load(Ordering::Relaxed)).ok().filter(|signal| *signal != 0)
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.watch.as_usual.store(true, Ordering::Relaxed);
    }
}
