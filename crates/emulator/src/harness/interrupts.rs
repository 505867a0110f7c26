//! Turns Ctrl-C, and requests to terminate, into a flag.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// While this lives, Ctrl-C and the signals to terminate and to hang up don't end the process but
/// set a flag, so that replicas can be killed and files removed. Afterwards they end it again.
#[derive(Debug)]
pub struct Interrupts {
    watch: &'static Watch,
}

#[derive(Debug)]
struct Watch {
    came: Arc<AtomicBool>,
    /// Whether the signals shall do what they do in any other program.
    as_usual: Arc<AtomicBool>,
}

/// Handlers are installed once for the process and stay.
static WATCH: OnceLock<Watch> = OnceLock::new();

impl Interrupts {
    /// Watches from now on. At any time there should be one of these only.
    ///
    /// # Errors
    ///
    /// When the system lets no handler be installed.
    pub fn watch() -> io::Result<Interrupts> {
        if WATCH.get().is_none() {
            let watch = Watch { came: Arc::new(AtomicBool::new(false)), as_usual: Arc::new(AtomicBool::new(false)) };
            for signal in [SIGINT, SIGTERM, SIGHUP] {
                flag::register_conditional_default(signal, Arc::clone(&watch.as_usual))?;
                flag::register(signal, Arc::clone(&watch.came))?;
            }
            // Another thread may have been first: then these handlers set flags of no use.
            let _ = WATCH.set(watch);
        }
        let watch = WATCH.get().expect("it was set above, and is never taken out");
        watch.came.store(false, Ordering::Relaxed);
        watch.as_usual.store(false, Ordering::Relaxed);
        Ok(Interrupts { watch })
    }

    /// What becomes true at the first signal, for [`RunOptions::stop`](super::RunOptions::stop).
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.watch.came)
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.watch.as_usual.store(true, Ordering::Relaxed);
    }
}
