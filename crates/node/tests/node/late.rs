//! A replica whose state machine is elsewhere: what it is to do waits, and so does what became of it.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bowline_node::raft::{Entry, Index, Raft, Random, Time, Token};
use bowline_node::{
    Applier, Conductor, ConductorEffect, Job, Node, NodeConfig, NodeEffect, NodeInput, RecoveredNode, Report,
    StateMachine, StoredSnapshot, Witness,
};

use bytes::Bytes;

use crate::ledger::Ledger;

/// The two ways in which a host can run a replica.
#[derive(Debug)]
pub(crate) enum Replica {
    /// Each job is done at once.
    Prompt(Box<Node<Ledger>>),
    /// Jobs take their time, and so do reports.
    Late(Box<Late>),
}

impl Replica {
    pub(crate) fn handle(&mut self, now: Time, input: NodeInput, out: &mut Vec<NodeEffect>) {
        match self {
            Replica::Prompt(node) => node.handle(now, input, out),
            Replica::Late(late) => late.handle(now, input, out),
        }
    }

    pub(crate) fn next_deadline(&self) -> Time {
        match self {
            Replica::Prompt(node) => node.next_deadline(),
            Replica::Late(late) => late.next_deadline(),
        }
    }

    pub(crate) fn raft(&self) -> &Raft {
        match self {
            Replica::Prompt(node) => node.raft(),
            Replica::Late(late) => late.conductor.raft(),
        }
    }

    pub(crate) fn machine(&self) -> &Ledger {
        match self {
            Replica::Prompt(node) => node.machine(),
            Replica::Late(late) => late.applier.machine(),
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        match self {
            Replica::Prompt(node) => node.waiting(),
            Replica::Late(late) => late.conductor.waiting(),
        }
    }

    pub(crate) fn set_witness(&mut self, witness: Witness) {
        match self {
            Replica::Prompt(node) => node.set_witness(witness),
            Replica::Late(late) => late.conductor.set_witness(witness),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Late {
    conductor: Conductor,
    applier: Applier<Ledger>,
    random: Random,
    /// How late a job, or a report, is at most.
    late: Duration,
    /// In order, each not before the one before it.
    jobs: VecDeque<(Time, Job)>,
    reports: VecDeque<(Time, Report)>,
    reads: BTreeSet<Token>,
    /// Reads that are granted: they look at the state later, in any order.
    readable: Vec<(Time, Token)>,
    /// The last entry that was applied.
    applied: Index,
}

impl Late {
    pub(crate) fn new(config: NodeConfig, mut recovered: RecoveredNode, late: Duration, now: Time) -> Late {
        let seed = config.raft.seed;
        let header = recovered.raft.snapshot.clone().unwrap();
        let applied = header.position.index;
        recovered.raft.applied = applied;
        let stored = recovered.snapshot.map(|data| StoredSnapshot { header, data });
        let machine = stored.as_ref().map_or_else(Ledger::default, |stored| Ledger::restore(&stored.data).unwrap());
        let applier = Applier::new(machine, stored.as_ref());
        let mut conductor = Conductor::new(config, recovered.raft, now).unwrap();
        if let Some(StoredSnapshot { header, data }) = stored {
            conductor.holds(header, data.len() as u64);
        }
        let (jobs, reports, readable) = (VecDeque::new(), VecDeque::new(), Vec::new());
        Late {
            conductor,
            applier,
            random: Random::new(seed),
            late,
            jobs,
            reports,
            reads: BTreeSet::new(),
            readable,
            applied,
        }
    }

    fn next_deadline(&self) -> Time {
        let queues = [self.jobs.front().map(|(at, _)| *at), self.reports.front().map(|(at, _)| *at)];
        let readable = self.readable.iter().map(|(at, _)| *at);
        queues.into_iter().flatten().chain(readable).min().unwrap_or(Time::NEVER).min(self.conductor.next_deadline())
    }

    fn handle(&mut self, now: Time, input: NodeInput, out: &mut Vec<NodeEffect>) {
        while self.jobs.front().is_some_and(|(at, _)| *at <= now) {
            let (_, job) = self.jobs.pop_front().unwrap();
            self.run(now, job, out);
        }
        for (_, token) in self.readable.extract_if(.., |(at, _)| *at <= now) {
            out.push(NodeEffect::Respond { token, response: Ok(Bytes::new()) });
        }
        let mut effects = Vec::new();
        while self.reports.front().is_some_and(|(at, _)| *at <= now) {
            let (_, report) = self.reports.pop_front().unwrap();
            self.conductor.report(now, report, &mut effects);
            self.pass_on(now, &mut effects, out);
        }
        if let NodeInput::Read { token, .. } = &input {
            self.reads.insert(*token);
        }
        self.conductor.handle(now, input, &mut effects);
        self.conductor.tend(now, &mut effects);
        self.pass_on(now, &mut effects, out);
    }

    fn pass_on(&mut self, now: Time, effects: &mut Vec<ConductorEffect>, out: &mut Vec<NodeEffect>) {
        for effect in effects.drain(..) {
            match effect {
                ConductorEffect::Persist { id, write } => out.push(NodeEffect::Persist { id, write }),
                ConductorEffect::Send { to, message, after } => out.push(NodeEffect::Send { to, message, after }),
                ConductorEffect::Respond { token, response: Ok(_) } if self.reads.remove(&token) => {
                    let at = self.later(now, None);
                    self.readable.push((at, token));
                }
                ConductorEffect::Respond { token, response } => out.push(NodeEffect::Respond { token, response }),
                ConductorEffect::Halt { fault } => out.push(NodeEffect::Halt { fault }),
                // Concerns only what was restored already, and goes before the write that follows.
                ConductorEffect::Do(job @ Job::Accept { .. }) => self.run(now, job, out),
                ConductorEffect::Do(job) => {
                    let at = self.later(now, self.jobs.back().map(|(at, _)| *at));
                    self.jobs.push_back((at, job));
                }
            }
        }
    }

    fn later(&mut self, now: Time, not_before: Option<Time>) -> Time {
        let at = now.after(self.random.span(Duration::ZERO, self.late));
        not_before.map_or(at, |before| before.max(at))
    }

    fn run(&mut self, now: Time, job: Job, out: &mut Vec<NodeEffect>) {
        self.check(&job);
        let mut reports = VecDeque::new();
        self.applier.run(job, out, &mut reports);
        for report in reports {
            let at = self.later(now, self.reports.back().map(|(at, _)| *at));
            self.reports.push_back((at, report));
        }
    }

    /// A state says of itself what it is, wherever the core is by then.
    fn check(&mut self, job: &Job) {
        match job {
            Job::Apply { entries } => {
                let indexes: Vec<Index> = entries.iter().map(|Entry { index, .. }| *index).collect();
                assert_eq!(indexes[0], self.applied.next(), "each entry is applied once, in order");
                self.applied = *indexes.last().unwrap();
            }
            Job::StoreState { header } | Job::Dump { header } => {
                assert_eq!(header.position.index, self.applied, "a snapshot holds what it says");
            }
            Job::Recall { contains, .. } => assert!(*contains <= self.applied, "{contains} is promised"),
            Job::Install { header } => {
                assert!(header.position.index > self.applied, "a snapshot brings what was not there");
                self.applied = header.position.index;
            }
            _ => {}
        }
    }
}
