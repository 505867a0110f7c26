//! A world as a page for a browser: filmed from outside, and drawn as a space-time picture with what
//! led to the violation. One file that needs no network.

mod evidence;
mod film;
mod html;
mod picture;
#[cfg(test)]
mod tests;

pub(crate) use film::Camera;
pub use film::Film;

use crate::world::performed_before;
use crate::world::plan::Plan;

/// Lets a world happen before a camera. What is violated in it, and its trace, are the same as without.
#[must_use]
pub fn film(plan: &Plan) -> Film {
    performed_before(plan, Camera::default())
}

impl Film {
    /// The page. `command` is the line that lets the world happen again.
    #[must_use]
    pub fn page(&self, command: &str) -> String {
        html::page(self, command)
    }
}
