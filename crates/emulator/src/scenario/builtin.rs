//! The scenario files that come with Bowline, easy ones first.

macro_rules! scenarios {
    ($($name:literal),* $(,)?) => {
        &[$((
            $name,
            include_str!(concat!("../../../../scenarios/", $name, ".json")),
        )),*]
    };
}

/// Name and file of each.
pub(super) const ALL: &[(&str, &str)] = scenarios![
    "simple-1",
    "simple-2",
    "unreliable-1",
    "unreliable-2",
    "unreliable-3",
    "crash-1",
    "crash-2",
    "crash-3",
    "crash-4",
    "partition-1",
    "partition-2",
    "partition-3",
    "partition-4",
    "mixture-1",
    "mixture-2",
    "mixture-3",
    "mixture-4",
    "trio-1",
    "trio-2",
    "seven-1",
    "seven-2",
    "nine-1",
    "storm-1",
    "storm-2",
    "storm-3",
    "storm-4",
];
