//! What reads hostile bytes, and the seeds of each: good input to begin with. They are made of the code itself, so that
//! none can be out of date; only of the schedules, a file keeps those that reached most.

/// A target.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&[u8]),
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(mod $name;)*
        pub(crate) const ALL: &[Target] =
            &[$(Target { name: stringify!($name), run: $name::run, seeds: $name::seeds }),*];
    };
}

targets! {
    authority bolt_files commands gateway lan_messages log_recovery peer_frames raft_messages requests schedules
    snapshot_files store_snapshots tokens
}
