//! Records a run and draws it as a web page: a space-time diagram, and the events that led to the violation. The page
//! is one file that needs no network.

mod evidence;
mod html;
mod picture;
mod recording;
#[cfg(test)]
mod tests;

pub(crate) use recording::Recorder;
pub use recording::Recording;

use crate::cluster::plan::Plan;
use crate::cluster::run_recorded;

/// Runs a simulated cluster and records it. The recorder changes neither the trace hash nor what is violated.
#[must_use]
pub fn record(plan: &Plan) -> Recording {
    run_recorded(plan, Recorder::default())
}

impl Recording {
    /// The page. `command` is the line that repeats the run.
    #[must_use]
    pub fn page(&self, command: &str) -> String {
        html::page(self, command)
    }
}
