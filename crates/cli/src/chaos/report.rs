//! The report of a run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bowline_server::paste::quote;
use serde_json::json;

use super::plan::{KINDS, MOVE};
use super::workload::Tally;
use crate::out::{Unprinted, tell};

pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) nodes: u64,
    pub(super) took: Duration,
    pub(super) tally: Tally,
    pub(super) keys: usize,
    /// Number of strikes with several faults.
    pub(super) combined: u64,
    /// How often a member stopped because its disk was full; each time, it was restarted.
    pub(super) stopped_when_full: u64,
    /// The longest write gap after each leader that was killed while nothing else was wrong, ascending.
    pub(super) leader_gaps: Vec<Duration>,
    pub(super) slowest_recovery: Duration,
    /// Revision and checksum of all members.
    pub(super) equal: Option<(i64, u32)>,
    /// Backups that were taken, with the one at the end.
    pub(super) backups: u64,
    /// The violations.
    pub(super) failures: Vec<String>,
    /// The folder with data, logs and history, if it is kept.
    pub(super) kept: Option<PathBuf>,
}

impl Report {
    /// Prints it.
    pub(super) fn tell(&self, as_json: bool) -> Result<(), Unprinted> {
        if as_json {
            return tell!("{}", self.json());
        }
        let Tally { operations, unknown, refused, longest_gap, faults, .. } = &self.tally;
        let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        let passed = self.failures.is_empty();
        let verdict = if passed { "PASSED" } else { "FAILED" };
        tell!("chaos, seed {}: {} members, {:.0} s: {verdict}", self.seed, self.nodes, self.took.as_secs_f64())?;
        tell!("  operations  {operations} on {} keys; {unknown} unknown, {refused} refused", self.keys)?;
        tell!("  faults      {}: {}", faults.values().sum::<u64>(), kinds(faults))?;
        tell!("  combined    {} strikes of several faults at once", self.combined)?;
        if self.stopped_when_full > 0 {
            tell!("  full disk   stopped a member {} times", self.stopped_when_full)?;
        }
        match (self.leader_gaps.last(), self.leader_gaps.get(self.leader_gaps.len() / 2)) {
            (Some(longest), Some(median)) => tell!(
                "  write gap   longest {}, median {} after a leader alone was killed ({} times); longest of all {}",
                seconds(*longest),
                seconds(*median),
                self.leader_gaps.len(),
                seconds(*longest_gap)
            )?,
            _ => tell!("  write gap   longest {}; no leader was killed alone", seconds(*longest_gap))?,
        }
        tell!("  recovery    longest {} from healing to the first write", seconds(self.slowest_recovery))?;
        if let Some((revision, hash)) = self.equal {
            tell!("  members     equal at revision {revision}, hash {hash:08x}")?;
        }
        if passed {
            tell!("  backups     {} can be restored; the last one equals the members", self.backups)?;
            tell!("  history     linearizable, with revisions in the order of real time")?;
        }
        for failure in &self.failures {
            tell!("  BROKEN      {failure}")?;
        }
        if let Some(kept) = &self.kept {
            tell!("  kept        {} (history.jsonl, logs, data)", quote(kept.as_os_str()))?;
            let (seed, nodes) = (self.seed, self.nodes);
            tell!(
                "  again       bowline chaos --nodes {nodes} --seed {seed} (the same faults, not at the same times)"
            )?;
        }
        Ok(())
    }

    fn json(&self) -> serde_json::Value {
        let millis = |time: &Duration| time.as_millis() as u64;
        json!({
            "passed": self.failures.is_empty(),
            "failures": self.failures,
            "seed": self.seed,
            "nodes": self.nodes,
            "seconds": self.took.as_secs_f64(),
            "operations": self.tally.operations,
            "keys": self.keys,
            "unknown": self.tally.unknown,
            "refused": self.tally.refused,
            "faults": self.tally.faults,
            "combined": self.combined,
            "stopped_when_full": self.stopped_when_full,
            "leader_kill_gaps_ms": self.leader_gaps.iter().map(millis).collect::<Vec<_>>(),
            "longest_write_gap_ms": millis(&self.tally.longest_gap),
            "slowest_recovery_ms": millis(&self.slowest_recovery),
            "revision": self.equal.map(|(revision, _)| revision),
            "hash": self.equal.map(|(_, hash)| format!("{hash:08x}")),
            "backups": self.backups,
            "kept": self.kept,
        })
    }
}

/// The counts of the faults, in one line.
pub(super) fn kinds(faults: &BTreeMap<&'static str, u64>) -> String {
    let told = KINDS.iter().chain([&MOVE]).filter_map(|kind| Some(format!("{kind} {}", faults.get(kind)?)));
    told.collect::<Vec<_>>().join(", ")
}
