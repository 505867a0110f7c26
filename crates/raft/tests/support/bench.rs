//! One replica on a bench: hand it inputs, look at its effects.

use std::collections::BTreeSet;
use std::time::Duration;

use bowline_raft::{
    AppendEntries, AppendEntriesReply, AppendOutcome, Body, Config, Effect, Effects, Entry, Group, HardState, Index,
    Input, InstallSnapshot, Membership, MembershipChange, Message, NodeId, Outcome, Payload, PersistId, Position, Raft,
    ReadKind, Recovered, Round, Session, SnapshotHeader, Term, Time, Token, Write,
};

pub(crate) const N1: NodeId = NodeId(1);
pub(crate) const N2: NodeId = NodeId(2);
pub(crate) const N3: NodeId = NodeId(3);
pub(crate) const N4: NodeId = NodeId(4);
pub(crate) const N5: NodeId = NodeId(5);

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn position(index: u64, term: u64) -> Position {
    Position::new(Index(index), Term(term))
}

pub(crate) fn ids(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

pub(crate) fn group(voters: &[u64], learners: &[u64]) -> Group {
    Group { voters: ids(voters), learners: ids(learners) }
}

pub(crate) fn simple(voters: &[u64]) -> Membership {
    Membership::simple(group(voters, &[]))
}

/// An entry whose command names its position.
pub(crate) fn entry(index: u64, term: u64) -> Entry {
    let command = format!("{index}@{term}").into_bytes();
    Entry { index: Index(index), term: Term(term), payload: Payload::Command(command.into()) }
}

/// Entries with these terms, from index `first` on.
pub(crate) fn entries(first: u64, terms: &[u64]) -> Vec<Entry> {
    terms.iter().zip(first..).map(|(term, index)| entry(index, *term)).collect()
}

/// A founding member that is about to start.
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) recovered: Recovered,
}

impl Setup {
    pub(crate) fn new(id: NodeId, membership: Membership) -> Setup {
        Setup { config: Config::new(id, 7), recovered: Recovered::founding(membership) }
    }

    /// With a log of these terms, and the last of them as its term.
    pub(crate) fn log(mut self, terms: &[u64]) -> Setup {
        self.recovered.entries = entries(1, terms);
        let last = terms.last().copied().unwrap_or(0);
        self.recovered.hard_state.term = self.recovered.hard_state.term.max(Term(last));
        self
    }

    pub(crate) fn term(mut self, term: u64) -> Setup {
        self.recovered.hard_state.term = Term(term);
        self
    }

    pub(crate) fn voted_for(mut self, id: NodeId) -> Setup {
        self.recovered.hard_state.voted_for = Some(id);
        self
    }

    /// Its disk has lost what its log held after what is left; it may have reached up to here.
    pub(crate) fn suspect(mut self, last_possible: Position) -> Setup {
        self.recovered.suspect = Some(last_possible);
        self
    }

    pub(crate) fn applied(mut self, index: u64) -> Setup {
        self.recovered.applied = Index(index);
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Config)) -> Setup {
        change(&mut self.config);
        self
    }

    /// Starts it, long enough ago for it to owe nothing to any earlier leader.
    pub(crate) fn start(self) -> Bench {
        let mut bench = self.restart();
        // Just before its deadline: that is at least the shortest election timeout after the start.
        bench.now = Time(bench.raft.next_deadline().0 - 1);
        bench
    }

    /// Starts it as it is, just after the crash.
    pub(crate) fn restart(self) -> Bench {
        let raft = Raft::new(self.config, self.recovered, Time::ZERO).expect("the setup is valid");
        Bench { raft, now: Time::ZERO, manual_disk: false, manual_machine: false, written: PersistId(0), token: 0 }
    }

    /// Starts it and lets it win an election against the others.
    pub(crate) fn lead(self) -> Bench {
        let mut bench = self.start();
        bench.win();
        bench
    }

    /// Starts it and lets it win, and commit its blank entry.
    pub(crate) fn lead_and_commit(self) -> Bench {
        let mut bench = self.lead();
        bench.all_accept();
        assert_eq!(bench.raft.commit_index(), bench.raft.log().last().index);
        bench
    }
}

/// A replica of three, `n1`.
pub(crate) fn one_of_three() -> Setup {
    Setup::new(N1, simple(&[1, 2, 3]))
}

/// A replica of five, `n1`.
pub(crate) fn one_of_five() -> Setup {
    Setup::new(N1, simple(&[1, 2, 3, 4, 5]))
}

/// A replica, and the time.
pub(crate) struct Bench {
    pub(crate) raft: Raft,
    pub(crate) now: Time,
    /// Whether the test itself says what is durable.
    pub(crate) manual_disk: bool,
    /// Whether the test itself says what is applied.
    pub(crate) manual_machine: bool,
    pub(crate) written: PersistId,
    token: u64,
}

impl Bench {
    /// Hands over an input. Disk and state machine do their work at once, unless they are manual.
    pub(crate) fn step(&mut self, input: Input) -> Vec<Effect> {
        let mut out = Effects::new();
        self.raft.handle(self.now, input, &mut out);
        let mut effects: Vec<Effect> = out.drain().collect();
        let (mut wrote, mut applied) = (false, None);
        for effect in &effects {
            match effect {
                Effect::Persist { id, .. } => {
                    assert_eq!(id.0, self.written.0 + 1, "the stream of writes has no gap");
                    self.written = *id;
                    wrote = true;
                }
                Effect::Apply { entries } => applied = entries.last().map(|entry| entry.index),
                Effect::InstallSnapshot { snapshot } => applied = Some(snapshot.position.index),
                _ => {}
            }
        }
        if wrote && !self.manual_disk {
            effects.extend(self.sync());
        }
        if let Some(index) = applied.filter(|_| !self.manual_machine) {
            effects.extend(self.step(Input::Applied { index }));
        }
        effects
    }

    /// Everything written is durable.
    pub(crate) fn sync(&mut self) -> Vec<Effect> {
        self.step(Input::Persisted { up_to: self.written })
    }

    pub(crate) fn receive(&mut self, from: NodeId, term: u64, body: Body) -> Vec<Effect> {
        self.step(Input::Receive { from, message: Message { term: Term(term), body } })
    }

    /// Time passes; the replica is woken whenever it asked for it.
    pub(crate) fn wait(&mut self, span: Duration) -> Vec<Effect> {
        let end = self.now.after(span);
        let mut effects = Vec::new();
        while self.raft.next_deadline() <= end {
            self.now = self.raft.next_deadline().max(self.now);
            effects.extend(self.step(Input::Wake));
        }
        self.now = end;
        effects
    }

    /// Time passes until the replica wants to be woken, and it is.
    pub(crate) fn until_deadline(&mut self) -> Vec<Effect> {
        self.now = self.raft.next_deadline().max(self.now);
        self.step(Input::Wake)
    }

    /// Its election timeout passes.
    pub(crate) fn time_out(&mut self) -> Vec<Effect> {
        assert!(!self.raft.is_leader(), "a leader has no election timeout");
        self.until_deadline()
    }

    /// It times out, wins the pre-vote and becomes a candidate.
    pub(crate) fn stand(&mut self) -> Vec<Effect> {
        self.time_out();
        let mut effects = Vec::new();
        for id in self.others() {
            effects.extend(self.receive(id, self.raft.term().0, Body::PreVoteReply { granted: true }));
        }
        effects
    }

    /// It wins an election with everybody's vote.
    pub(crate) fn win(&mut self) -> Vec<Effect> {
        let mut effects = self.stand();
        for id in self.others() {
            if !self.raft.is_leader() {
                effects.extend(self.receive(id, self.raft.term().0, Body::RequestVoteReply { granted: true }));
            }
        }
        assert!(self.raft.is_leader());
        effects
    }

    pub(crate) fn others(&self) -> Vec<NodeId> {
        let me = self.raft.id();
        self.raft.membership().voters().into_iter().filter(|id| *id != me).collect()
    }

    /// The state of the leader's relation with `peer`, as its next heartbeat shows it.
    pub(crate) fn heartbeat_to(&mut self, peer: NodeId) -> AppendEntries {
        let effects = self.wait(self.raft.config().heartbeat_interval);
        (*appends_to(&effects, peer).last().expect("a heartbeat")).clone()
    }

    /// `from` answers this AppendEntries with "accepted".
    pub(crate) fn accept(&mut self, from: NodeId, append: &AppendEntries) -> Vec<Effect> {
        let match_index = append.entries.last().map_or(append.prev.index, |entry| entry.index);
        self.answer(from, append, AppendOutcome::Accepted { match_index })
    }

    pub(crate) fn reject(&mut self, from: NodeId, append: &AppendEntries, hint: Position) -> Vec<Effect> {
        self.answer(from, append, AppendOutcome::Rejected { prev_index: append.prev.index, hint })
    }

    pub(crate) fn answer(&mut self, from: NodeId, append: &AppendEntries, outcome: AppendOutcome) -> Vec<Effect> {
        let AppendEntries { session, round, sent_at, .. } = *append;
        let reply = AppendEntriesReply { session, round, sent_at, outcome };
        self.receive(from, self.raft.term().0, Body::AppendEntriesReply(reply))
    }

    /// Every voter accepts all that it is sent, until nothing more is.
    pub(crate) fn all_accept(&mut self) -> Vec<Effect> {
        let others = self.others();
        self.these_accept(&others)
    }

    /// These peers accept the next heartbeat with all that follows.
    pub(crate) fn these_accept(&mut self, peers: &[NodeId]) -> Vec<Effect> {
        let mut effects = self.wait(self.raft.config().heartbeat_interval);
        let mut at = 0;
        while at < effects.len() {
            if let Effect::Send { to, message: Message { body: Body::AppendEntries(append), .. }, .. } = &effects[at]
                && peers.contains(to)
            {
                let (to, append) = (*to, append.clone());
                let more = self.accept(to, &append);
                effects.extend(more);
            }
            at += 1;
        }
        effects
    }

    fn token(&mut self) -> Token {
        self.token += 1;
        Token(self.token)
    }

    /// The token of the latest request.
    pub(crate) fn latest(&self) -> Token {
        Token(self.token)
    }

    pub(crate) fn propose(&mut self, command: &str) -> Vec<Effect> {
        let (token, command) = (self.token(), command.as_bytes().to_vec().into());
        self.step(Input::Propose { token, command, deadline: None })
    }

    pub(crate) fn read(&mut self, kind: ReadKind) -> Vec<Effect> {
        let token = self.token();
        self.step(Input::Read { token, kind, deadline: None })
    }

    pub(crate) fn change(&mut self, change: MembershipChange) -> Vec<Effect> {
        let token = self.token();
        self.step(Input::ChangeMembership { token, change })
    }

    pub(crate) fn transfer(&mut self, to: Option<NodeId>) -> Vec<Effect> {
        let token = self.token();
        self.step(Input::TransferLeadership { token, to })
    }

    /// An AppendEntries from a leader arrives.
    pub(crate) fn append(&mut self, from: NodeId, term: u64, append: AppendEntries) -> Vec<Effect> {
        self.receive(from, term, Body::AppendEntries(append))
    }

    /// A heartbeat from a leader arrives.
    pub(crate) fn heartbeat(&mut self, from: NodeId, term: u64) -> Vec<Effect> {
        self.append(from, term, append(Position::ORIGIN, vec![], 0))
    }

    pub(crate) fn request_vote(&mut self, from: NodeId, term: u64, last: Position) -> Vec<Effect> {
        self.receive(from, term, Body::RequestVote { last, transfer: false })
    }

    pub(crate) fn install(&mut self, from: NodeId, term: u64, at: Position, membership: Membership) -> Vec<Effect> {
        let snapshot = SnapshotHeader { position: at, membership };
        self.receive(from, term, Body::InstallSnapshot(InstallSnapshot { session: Session(9), snapshot }))
    }

    /// Terms of its log, from the base on.
    pub(crate) fn terms(&self) -> Vec<u64> {
        self.raft.log().iter().map(|entry| entry.term.0).collect()
    }
}

/// An AppendEntries of some leader's first session.
pub(crate) fn append(prev: Position, entries: Vec<Entry>, commit: u64) -> AppendEntries {
    let (session, round, sent_at) = (Session(1), Round(0), Time(1));
    AppendEntries { session, round, sent_at, prev, entries, commit_index: Index(commit), durable_index: Index(0) }
}

/// Every message sent, with its receiver.
pub(crate) fn sent(effects: &[Effect]) -> Vec<(NodeId, &Body)> {
    let list = effects.iter().filter_map(|effect| match effect {
        Effect::Send { to, message, .. } => Some((*to, &message.body)),
        _ => None,
    });
    list.collect()
}

pub(crate) fn sent_to(effects: &[Effect], to: NodeId) -> Vec<&Body> {
    sent(effects).into_iter().filter(|(receiver, _)| *receiver == to).map(|(_, body)| body).collect()
}

pub(crate) fn appends_to(effects: &[Effect], to: NodeId) -> Vec<&AppendEntries> {
    let list = sent_to(effects, to).into_iter().filter_map(|body| match body {
        Body::AppendEntries(append) => Some(append),
        _ => None,
    });
    list.collect()
}

/// The only answer to an AppendEntries or InstallSnapshot.
pub(crate) fn reply(effects: &[Effect]) -> AppendOutcome {
    let replies: Vec<_> = sent(effects)
        .into_iter()
        .filter_map(|(_, body)| match body {
            Body::AppendEntriesReply(reply) => Some(reply.outcome),
            _ => None,
        })
        .collect();
    assert_eq!(replies.len(), 1, "one answer in {effects:?}");
    replies[0]
}

pub(crate) fn accepted(index: u64) -> AppendOutcome {
    AppendOutcome::Accepted { match_index: Index(index) }
}

/// Whether a vote was granted; `None` if there was no answer.
pub(crate) fn vote(effects: &[Effect]) -> Option<bool> {
    sent(effects).into_iter().find_map(|(_, body)| match body {
        Body::RequestVoteReply { granted } | Body::PreVoteReply { granted } => Some(*granted),
        _ => None,
    })
}

pub(crate) fn outcomes(effects: &[Effect]) -> Vec<(Token, &Outcome)> {
    let list = effects.iter().filter_map(|effect| match effect {
        Effect::Answer { token, outcome } => Some((*token, outcome)),
        _ => None,
    });
    list.collect()
}

/// The only outcome.
pub(crate) fn outcome(effects: &[Effect]) -> &Outcome {
    let all = outcomes(effects);
    assert_eq!(all.len(), 1, "one answer in {effects:?}");
    all[0].1
}

pub(crate) fn writes(effects: &[Effect]) -> Vec<&Write> {
    let list = effects.iter().filter_map(|effect| match effect {
        Effect::Persist { write, .. } => Some(write),
        _ => None,
    });
    list.collect()
}

/// Terms and votes written.
pub(crate) fn hard_states(effects: &[Effect]) -> Vec<HardState> {
    let list = writes(effects).into_iter().filter_map(|write| match write {
        Write::HardState(state) => Some(*state),
        _ => None,
    });
    list.collect()
}

/// Indexes handed to the state machine.
pub(crate) fn applied(effects: &[Effect]) -> Vec<u64> {
    let batches = effects.iter().filter_map(|effect| match effect {
        Effect::Apply { entries } => Some(entries),
        _ => None,
    });
    batches.flatten().map(|entry| entry.index.0).collect()
}

/// What a message must wait for.
pub(crate) fn waits_for(effects: &[Effect]) -> Vec<Option<PersistId>> {
    let after = |effect: &Effect| match effect {
        Effect::Send { after, .. } => Some(*after),
        _ => None,
    };
    effects.iter().filter_map(after).collect()
}
