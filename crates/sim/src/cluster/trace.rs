//! The trace of a run: one line for each event.

use std::fmt::{self, Write as _};

use bowline_node::{Failure, NodeMessage, NotDone, Response};
use bowline_raft::NodeId;

use crate::cluster::clock::Moment;
use crate::cluster::plan::{MILLI, Plan};

/// A line of the trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it happened, in nanoseconds of true time.
    pub at: u64,
    /// The replica; `None` if it concerns several or none.
    pub id: Option<NodeId>,
    /// What happened.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.at / 1_000_000_000;
        let micros = self.at / 1_000 % 1_000_000;
        let id = self.id.map_or(String::new(), |id| id.to_string());
        write!(f, "{seconds:>4}.{micros:06}  {id:<4} {}", self.text)
    }
}

impl Plan {
    /// A description of the cluster in a few lines.
    #[must_use]
    pub fn header(&self) -> String {
        let millis = |span: Moment| format!("{} ms", span as f64 / MILLI as f64);
        let (settings, network, work) = (&self.settings, &self.network, &self.workload);
        let plural = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        let mut cluster = plural(self.voters, "member");
        if self.learners > 0 {
            let _ = write!(cluster, " and {} to be added", plural(self.learners, "learner"));
        }
        let mut out = format!("seed {}: {cluster}, {}", self.seed, plural(work.clients, "client"));
        if let Some(sabotage) = self.sabotage {
            let _ = write!(out, ", sabotaged: {sabotage:?}");
        }
        if let Some(mutant) = crate::mutation::chosen() {
            let _ = write!(out, "\nmutant      {}: {}", mutant.name, mutant.breaks);
        }
        let after = if self.liveness { ", then a majority is made whole" } else { "" };
        let _ = write!(out, "\ntime        {:.3} s of faults{after}", self.safety as f64 / 1e9);
        let (low, high) = (millis(settings.election_min), millis(settings.election_max));
        let _ = write!(out, "\nraft        election timeout {low} to {high}, heartbeat {}", millis(settings.heartbeat));
        for (on, what) in [
            (settings.thrifty.is_some(), "thrifty"),
            (settings.eager_commit, "eager commit"),
            (settings.lease_reads, "lease reads"),
        ] {
            out.push_str(if on { ", " } else { "" });
            out.push_str(if on { what } else { "" });
        }
        let _ = write!(out, ", limits {}", ["wide", "small", "tiny"][settings.tightness.min(2) as usize]);
        let _ = write!(out, "\nnetwork     {:?}, clocks {:?}", network.delay, self.clocks);
        let (keys, writes, timeout) = (plural(work.keys as usize, "key"), work.write_percent, millis(work.timeout));
        let _ = write!(out, "\nclients     {keys}, {writes} % writes, timeout {timeout}, {} tries", work.tries);
        let state = match (work.stores, self.disk.holds_state) {
            (false, _) => "a map",
            (true, false) => "a store, in memory",
            (true, true) => "a store, in redb on the disk",
        };
        let _ = write!(out, "\nstate       {state}");
        let faults = self.kinds().iter().map(|kind| format!("{kind:?}")).collect::<Vec<_>>();
        let faults = if faults.is_empty() { "none".to_owned() } else { faults.join(", ") };
        let _ = write!(out, "\nfaults      {faults}");
        if let Some(strikes) = &self.strikes {
            let _ = write!(out, "\nof these    {} strikes only", strikes.len());
        }
        if let Some(operations) = &self.operations {
            let _ = write!(out, "\noperations  only {} of the seed's", operations.len());
        }
        out
    }
}

/// A message in a few words.
pub(crate) fn describe(message: &NodeMessage) -> String {
    match message {
        NodeMessage::Raft(message) => message.to_string(),
        NodeMessage::Chunk(chunk) => {
            let end = chunk.offset.wrapping_add(chunk.data.len() as u64);
            format!(
                "@{} Chunk last={} bytes {}..{end} of {}",
                chunk.term.0, chunk.header.position, chunk.offset, chunk.total
            )
        }
        NodeMessage::ChunkReply(reply) => format!("@{} ChunkReply received={}", reply.term.0, reply.received),
    }
}

/// A response in a few words.
pub(crate) fn describe_response(response: &Response) -> String {
    match response {
        Ok(bytes) if bytes.is_empty() => "done".to_owned(),
        Ok(bytes) => {
            let text = String::from_utf8_lossy(bytes);
            format!("done: {}", text.trim_end_matches('.'))
        }
        Err(Failure::NotDone(NotDone::NotLeader { leader: Some(leader) })) => format!("not leader, ask {leader}"),
        Err(failure) => failure.to_string(),
    }
}
