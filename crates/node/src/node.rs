//! A whole replica: the conductor and a state machine, with every job done at once.

use std::collections::VecDeque;

use bowline_raft::{ConfigError, Index, Raft, Time};

use crate::applier::Applier;
use crate::conductor::Conductor;
use crate::input::{NodeConfig, NodeEffect, NodeInput, RecoveredNode, StoredSnapshot, Witness};
use crate::job::{ConductorEffect, Report};
use crate::machine::StateMachine;

/// One replica: a [`Conductor`] and its state machine, with every job done at once.
pub struct Node<S> {
    conductor: Conductor,
    applier: Applier<S>,
    /// The conductor's effects to carry out, and the reports to it. Both are empty between inputs, and kept for their
    /// memory.
    work: Vec<ConductorEffect>,
    reports: VecDeque<Report>,
}

impl<S: std::fmt::Debug + StateMachine> std::fmt::Debug for Node<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (raft, machine) = (self.conductor.raft(), self.applier.machine());
        f.debug_struct("Node").field("raft", raft).field("machine", machine).finish_non_exhaustive()
    }
}

impl<S: StateMachine> Node<S> {
    /// A replica that starts. Its state machine is that of the snapshot in `recovered`, or else `empty`.
    ///
    /// # Errors
    /// The configuration is out of range, or what was recovered contradicts itself.
    pub fn new(config: NodeConfig, empty: S, mut recovered: RecoveredNode, now: Time) -> Result<Node<S>, ConfigError> {
        let header = recovered.raft.snapshot.clone();
        recovered.raft.applied = header.as_ref().map_or(Index(0), |header| header.position.index);
        let (machine, stored) = match (recovered.snapshot, header) {
            (Some(data), Some(header)) => {
                let machine = S::restore(&data).map_err(|error| ConfigError::Recovered(error.to_string()))?;
                (machine, Some(StoredSnapshot { header, data }))
            }
            _ => (empty, None),
        };
        let applier = Applier::new(machine, stored.as_ref());
        let mut conductor = Conductor::new(config, recovered.raft, now)?;
        if let Some(StoredSnapshot { header, data }) = stored {
            conductor.holds(header, data.len() as u64);
        }
        Ok(Node { conductor, applier, work: Vec::new(), reports: VecDeque::new() })
    }

    /// Takes one input and appends the effects to `out`.
    pub fn handle(&mut self, now: Time, input: NodeInput, out: &mut Vec<NodeEffect>) {
        self.conductor.handle(now, input, &mut self.work);
        self.settle(now, out);
        self.conductor.tend(now, &mut self.work);
        self.settle(now, out);
    }

    /// Does the jobs and gives the conductor their reports, until nothing is left to do. The reports wait in a queue:
    /// with small batches and a long backlog, nested calls would have no bound.
    fn settle(&mut self, now: Time, out: &mut Vec<NodeEffect>) {
        loop {
            for effect in self.work.drain(..) {
                match effect {
                    ConductorEffect::Persist { id, write } => out.push(NodeEffect::Persist { id, write }),
                    ConductorEffect::Send { to, message, after } => out.push(NodeEffect::Send { to, message, after }),
                    ConductorEffect::Respond { token, response } => out.push(NodeEffect::Respond { token, response }),
                    ConductorEffect::Do(job) => self.applier.run(job, out, &mut self.reports),
                    ConductorEffect::Halt { fault } => out.push(NodeEffect::Halt { fault }),
                }
            }
            let Some(report) = self.reports.pop_front() else { return };
            self.conductor.report(now, report, &mut self.work);
        }
    }

    /// When to call [`Node::handle`] with [`NodeInput::Wake`] at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Time {
        self.conductor.next_deadline()
    }

    /// Lets `witness` see each step of the core from now on, for the checks of the simulator. It changes no result,
    /// and without a witness a step costs nothing more.
    pub fn set_witness(&mut self, witness: Witness) {
        self.conductor.set_witness(witness);
    }

    /// The consensus core.
    #[must_use]
    pub fn raft(&self) -> &Raft {
        self.conductor.raft()
    }

    /// The state machine.
    #[must_use]
    pub fn machine(&self) -> &S {
        self.applier.machine()
    }

    /// Whether a snapshot is on its way, from or to this replica.
    #[must_use]
    pub fn is_in_transfer(&self) -> bool {
        self.conductor.is_in_transfer()
    }

    /// Bytes of the latest snapshot; 0 if there is none.
    #[must_use]
    pub fn snapshot_bytes(&self) -> usize {
        usize::try_from(self.conductor.snapshot_bytes()).unwrap_or(usize::MAX)
    }

    /// How many snapshots have arrived in full since the start but could not be restored. There is none as long as
    /// every sender sends valid snapshots and pieces of two snapshots are never mixed.
    #[must_use]
    pub fn unrestored_snapshots(&self) -> u64 {
        self.applier.unrestored()
    }

    /// How many requests wait for their answer.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.conductor.waiting()
    }
}
