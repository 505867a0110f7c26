//! Messages that no replica would send, to the core: it may refuse them, or halt with a typed fault, but it must
//! not panic, and it answers each request once.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::source::Source;
use bowline_raft::{
    AppendEntries, AppendEntriesReply, AppendOutcome, Body, Config, Effect, Effects, Entry, Found, Group, HardState,
    Index, Input, InstallSnapshot, Membership, MembershipChange, Message, NodeId, Payload, PersistId, Position, Raft,
    ReadKind, Recovered, Round, Session, SnapshotHeader, Term, Time, Token,
};

pub(crate) fn run(data: &[u8]) {
    Host::new(data).run();
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    vec![
        // Wake up twice, be elected, propose.
        vec![8, 8, 1, 2, 1, 0, 3, 0, 1, 2, 1, 0, 3, 0, 10, 11, 11],
        (0..200).collect(),
        (0..200).map(|byte: u8| byte.wrapping_mul(37)).collect(),
    ]
}

struct Host<'a> {
    source: Source<'a>,
    raft: Raft,
    now: Time,
    effects: Effects,
    /// The last write that was handed out, and the last one that was said to be durable.
    written: PersistId,
    durable: PersistId,
    /// Up to where entries were handed out, and up to where they were said to be applied.
    handed: Index,
    applied: Index,
    token: u64,
    open: BTreeSet<Token>,
    transfers: Vec<(NodeId, Session)>,
    halted: bool,
    /// What the replica calls its start.
    start_id: u64,
}

impl<'a> Host<'a> {
    fn new(data: &'a [u8]) -> Host<'a> {
        let voters = Group::of_voters([NodeId(1), NodeId(2), NodeId(3)]);
        let recovered = Recovered::founding(Membership::simple(voters));
        let mut config = Config::new(NodeId(1), 7);
        config.max_retained_bytes = 64;
        // Half of the inputs begin with an odd byte.
        config.return_check = data.first().is_some_and(|byte| byte % 2 == 1);
        let raft = Raft::new(config, recovered, Time(0)).expect("a good configuration");
        Host {
            source: Source::new(data),
            raft,
            now: Time(0),
            effects: Effects::new(),
            written: PersistId(0),
            durable: PersistId(0),
            handed: Index(0),
            applied: Index(0),
            token: 0,
            open: BTreeSet::new(),
            transfers: Vec::new(),
            halted: false,
            start_id: 0,
        }
    }

    fn run(mut self) {
        while !self.source.is_empty() && !self.halted {
            self.step();
        }
    }

    fn step(&mut self) {
        match self.source.byte() % 16 {
            0..8 => {
                let (from, message) = (NodeId(self.source.number() % 5), self.message());
                self.give(Input::Receive { from, message });
            }
            8 => {
                let due = self.raft.next_deadline();
                if due < Time::NEVER {
                    self.now = self.now.max(due);
                }
                self.give(Input::Wake);
            }
            9 => {
                self.now = self.now.after(Duration::from_millis(self.source.byte().into()));
                self.give(Input::Wake);
            }
            10 => {
                let (token, command) = (self.next_token(), self.source.bytes(20).to_vec().into());
                let deadline = self.deadline();
                self.give(Input::Propose { token, command, deadline });
            }
            11 => {
                let (token, kind) = (self.next_token(), self.kind());
                let deadline = self.deadline();
                self.give(Input::Read { token, kind, deadline });
            }
            12 => {
                let token = self.next_token();
                let change =
                    if self.source.flag() { MembershipChange::Revert } else { MembershipChange::Replace(self.group()) };
                self.give(Input::ChangeMembership { token, change });
            }
            13 => {
                let token = self.next_token();
                let to = self.source.flag().then(|| NodeId(self.source.number() % 5));
                self.give(Input::TransferLeadership { token, to });
            }
            _ => self.acknowledge(),
        }
    }

    fn acknowledge(&mut self) {
        match self.source.byte() % 4 {
            0 if self.durable < self.written => {
                self.durable = self.written;
                self.give(Input::Persisted { up_to: self.durable });
            }
            1 if self.applied < self.handed => {
                self.applied = self.handed;
                self.give(Input::Applied { index: self.applied });
            }
            2 if self.applied > Index(0) && self.applied <= self.raft.last_applied() => {
                self.give(Input::SnapshotStored { index: self.applied });
            }
            3 => {
                if let Some((to, session)) = self.transfers.pop() {
                    let delivered = self.source.flag();
                    self.give(Input::SnapshotSent { to, session, delivered });
                }
            }
            _ => {}
        }
    }

    fn give(&mut self, input: Input) {
        self.raft.handle(self.now, input, &mut self.effects);
        for effect in self.effects.drain() {
            match effect {
                Effect::Persist { id, .. } => self.written = id,
                Effect::Apply { entries } => {
                    for entry in entries {
                        assert_eq!(entry.index, self.handed.next(), "entries are applied one after the other");
                        self.handed = entry.index;
                    }
                }
                Effect::InstallSnapshot { snapshot } => self.handed = self.handed.max(snapshot.position.index),
                Effect::FetchSnapshot { to, session } => self.transfers.push((to, session)),
                Effect::Answer { token, .. } => assert!(self.open.remove(&token), "a request was answered twice"),
                Effect::Halt { .. } => self.halted = true,
                Effect::Send { message: Message { body: Body::Returned { start_id, .. }, .. }, .. } => {
                    self.start_id = start_id
                }
                Effect::Send { .. } => {}
            }
        }
        assert!(!self.halted || self.open.is_empty(), "who halts answers first");
    }

    fn next_token(&mut self) -> Token {
        self.token += 1;
        self.open.insert(Token(self.token));
        Token(self.token)
    }

    fn deadline(&mut self) -> Option<Time> {
        self.source.flag().then(|| self.now.after(Duration::from_millis(self.source.byte().into())))
    }

    fn kind(&mut self) -> ReadKind {
        if self.source.flag() { ReadKind::Lease } else { ReadKind::Quorum }
    }

    fn position(&mut self) -> Position {
        let index = Index(self.source.number());
        Position::new(index, Term(self.source.number()))
    }

    fn group(&mut self) -> Group {
        let mut group = Group::default();
        for _ in 0..self.source.byte() % 5 {
            group.voters.insert(NodeId(self.source.number() % 8));
        }
        for _ in 0..self.source.byte() % 3 {
            group.learners.insert(NodeId(self.source.number() % 8));
        }
        group
    }

    fn membership(&mut self) -> Membership {
        let incoming = self.group();
        if self.source.flag() { Membership::joint(self.group(), incoming) } else { Membership::simple(incoming) }
    }

    fn entry(&mut self, index: u64) -> Entry {
        let index = if self.source.byte() < 0xf0 { index } else { self.source.number() };
        let term = Term(self.source.number());
        let payload = match self.source.byte() % 4 {
            0 => Payload::Blank,
            1 => Payload::Membership(self.membership()),
            _ => Payload::Command(self.source.bytes(12).to_vec().into()),
        };
        Entry { index: Index(index), term, payload }
    }

    fn append(&mut self) -> AppendEntries {
        let prev = self.position();
        let count = u64::from(self.source.byte() % 4);
        AppendEntries {
            session: Session(self.source.number()),
            round: Round(self.source.number()),
            sent_at: Time(self.source.number()),
            prev,
            entries: (1..=count).map(|place| self.entry(prev.index.0.saturating_add(place))).collect(),
            commit_index: Index(self.source.number()),
            durable_index: Index(self.source.number()),
        }
    }

    fn append_reply(&mut self) -> AppendEntriesReply {
        let outcome = match self.source.byte() % 3 {
            0 => AppendOutcome::Accepted { match_index: Index(self.source.number()) },
            1 => AppendOutcome::Rejected { prev_index: Index(self.source.number()), hint: self.position() },
            _ => AppendOutcome::Damaged {
                prev_index: Index(self.source.number()),
                hint: self.position(),
                loss_id: self.source.number(),
            },
        };
        AppendEntriesReply {
            session: Session(self.source.number()),
            round: Round(self.source.number()),
            sent_at: Time(self.source.number()),
            outcome,
        }
    }

    fn found(&mut self) -> Found {
        let term = Term(self.source.number());
        let voted_for = self.source.flag().then(|| NodeId(self.source.number() % 5));
        Found { hard_state: HardState { term, voted_for }, last: self.position() }
    }

    fn message(&mut self) -> Message {
        // Often of its own term: others are mostly passed over.
        let term = if self.source.flag() { self.raft.term() } else { Term(self.source.number()) };
        let body = match self.source.byte() % 14 {
            0 => Body::PreVote { last: self.position() },
            1 => Body::PreVoteReply { granted: self.source.flag() },
            2 => Body::RequestVote { last: self.position(), transfer: self.source.flag() },
            3 => Body::RequestVoteReply { granted: self.source.flag() },
            4..7 => Body::AppendEntries(self.append()),
            7 | 8 => Body::AppendEntriesReply(self.append_reply()),
            9 => Body::InstallSnapshot(InstallSnapshot {
                session: Session(self.source.number()),
                snapshot: SnapshotHeader { position: self.position(), membership: self.membership() },
            }),
            10 => Body::TimeoutNow,
            11 => Body::Returned { start_id: self.source.number(), found: self.found() },
            12 => Body::Remembered {
                // Mostly an answer to what was asked.
                start_id: if self.source.flag() { self.start_id } else { self.source.number() },
                missing: self.source.flag().then(|| Term(self.source.number())),
                leads: self.source.flag().then(|| self.position()),
            },
            _ if self.source.flag() => Body::ReadIndex { context: self.source.number(), kind: self.kind() },
            _ => Body::ReadIndexReply {
                context: self.source.number(),
                index: self.source.flag().then(|| Index(self.source.number())),
            },
        };
        Message { term, body }
    }
}
