//! The museum's switches in this crate: see `bowline_raft`'s. Without the feature `museum` there is nothing to switch,
//! and [`mutant!`] is the constant `false`.

/// Whether this folder carries the mutant: `mutant!(options, Name)`.
#[cfg(feature = "museum")]
macro_rules! mutant {
    ($options:expr, $name:ident) => {
        $options.mutant == Some(bowline_raft::Mutant::$name)
    };
}

/// Whether this folder carries the mutant: never, in a build without the museum.
#[cfg(not(feature = "museum"))]
macro_rules! mutant {
    ($options:expr, $name:ident) => {
        $crate::mutant::asleep($options)
    };
}

pub(crate) use mutant;

/// What every mutant is in a build without the museum.
#[cfg(not(feature = "museum"))]
#[inline(always)]
pub(crate) const fn asleep(_: &crate::log::Options) -> bool {
    false
}
