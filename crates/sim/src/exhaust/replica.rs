//! A replica in the search: the real core, its disk, and what waits for the disk.

use bowline_raft::{
    AppendOutcome, Body, Config, Effect, Effects, Entry, Fault, HardState, Index, Input, Membership, MembershipChange,
    Message, NodeId, Outcome, Payload, PersistId, Raft, Recovered, SnapshotHeader, Time, Token, Write,
};

/// A replica without time. Equal replicas behave the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Replica {
    pub(super) raft: Raft,
    pub(super) disk: Disk,
    unsynced: Vec<(PersistId, Write)>,
    parked: Vec<(PersistId, Envelope)>,
}

/// What survives a crash. The snapshot is always the founding one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Disk {
    hard_state: HardState,
    founders: Membership,
    pub(super) entries: Vec<Entry>,
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Envelope {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) message: Message,
}

/// Something that happens to one replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A message arrives.
    Receive { from: NodeId, message: Message },
    /// It has heard nothing for an election timeout: it stands for election, or steps down.
    TimeOut,
    /// A leader sends heartbeats, and sends again what was not answered.
    Heartbeat,
    /// A client proposes a command.
    Propose(u8),
    /// An operator asks for a change.
    Change(MembershipChange),
    /// The oldest write is on disk.
    Persist,
    /// The power fails, and it starts again from its disk.
    Restart,
}

/// A description of a broken rule.
pub(super) type Broken = String;

impl Replica {
    pub(super) fn founding(config: Config, founders: &Membership) -> Replica {
        let disk = Disk { hard_state: HardState::default(), founders: founders.clone(), entries: Vec::new() };
        let raft = start(config, &disk);
        Replica { raft, disk, unsynced: Vec::new(), parked: Vec::new() }
    }

    /// The replica after an event, and what it sends.
    pub(super) fn after(&self, event: Event) -> Result<(Replica, Vec<Envelope>), Broken> {
        let mut next = self.clone();
        let mut sent = Vec::new();
        let resting = next.raft.config().clone();
        // All clocks stand at one moment; an event that needs time happens a span after it.
        let moment = |span| Some(MOMENT.after(span));
        let (at, input) = match event {
            Event::Receive { from, message } => (None, Input::Receive { from, message }),
            Event::TimeOut => (moment(resting.election_timeout_max), Input::Wake),
            Event::Heartbeat => (moment(resting.heartbeat_interval.max(resting.retry_after)), Input::Wake),
            Event::Propose(number) => {
                let input =
                    Input::Propose { token: Token(number.into()), command: vec![number].into(), deadline: None };
                (None, input)
            }
            Event::Change(change) => {
                // A leader changes its configuration at most once at each index, so term and index make a unique token.
                let place = next.raft.term().0 << 20 | next.raft.log().last().index.0;
                (None, Input::ChangeMembership { token: Token(1 << 40 | place), change })
            }
            Event::Persist => {
                next.sync_one(&mut sent)?;
                next.rest();
                return Ok((next, sent));
            }
            Event::Restart => {
                next.raft = start(resting, &next.disk);
                next.unsynced.clear();
                next.parked.clear();
                return Ok((next, sent));
            }
        };
        next.feed(at.unwrap_or(MOMENT), input, &mut sent)?;
        next.rest();
        self.moved_forward(&next)?;
        Ok((next, sent))
    }

    /// Whether a write is on its way to the disk.
    pub(super) fn is_writing(&self) -> bool {
        !self.unsynced.is_empty()
    }

    fn feed(&mut self, at: Time, input: Input, sent: &mut Vec<Envelope>) -> Result<(), Broken> {
        let id = self.raft.id();
        let mut effects = Effects::new();
        self.raft.handle(at, input, &mut effects);
        let mut applied = None;
        for effect in effects.drain() {
            match effect {
                Effect::Persist { id, write } => self.unsynced.push((id, write)),
                Effect::Send { to, message, after } => {
                    let envelope = Envelope { from: id, to, message };
                    let waits = after.filter(|after| self.unsynced.iter().any(|(pending, _)| pending <= after));
                    match waits {
                        Some(after) => self.parked.push((after, envelope)),
                        None => self.leaves(envelope, sent)?,
                    }
                }
                Effect::Apply { entries } => applied = entries.last().map(|entry| entry.index),
                Effect::Answer { token, outcome } => self.answered(token, &outcome)?,
                Effect::Halt { fault } => return Err(halted(id, &fault)),
                Effect::FetchSnapshot { .. } | Effect::InstallSnapshot { .. } => {
                    return Err(format!("{id} handles a snapshot, but there are none"));
                }
            }
        }
        match applied {
            Some(index) => self.feed(at, Input::Applied { index }, sent),
            None => Ok(()),
        }
    }

    /// Checks that a command that was answered with success is at the position in the answer.
    fn answered(&self, token: Token, outcome: &Outcome) -> Result<(), Broken> {
        let Outcome::Done { position } = outcome else { return Ok(()) };
        let Ok(number) = u8::try_from(token.0) else { return Ok(()) };
        let entry = self.raft.log().entry(position.index);
        match entry.map(|entry| &entry.payload) == Some(&Payload::Command(vec![number].into())) {
            true => Ok(()),
            false => Err(format!("{} says that command {number} is done at {position}, but it is not", self.raft.id())),
        }
    }

    /// A message leaves. Checks that what it promises is on disk (I8, I9).
    fn leaves(&self, envelope: Envelope, sent: &mut Vec<Envelope>) -> Result<(), Broken> {
        let Envelope { from, to, message } = &envelope;
        let kept = self.disk.hard_state;
        let voted_for =
            |candidate| kept.term > message.term || (kept.term, kept.voted_for) == (message.term, Some(candidate));
        let kept_promise = match &message.body {
            Body::RequestVote { .. } => voted_for(*from),
            Body::RequestVoteReply { granted: true } => voted_for(*to),
            Body::AppendEntriesReply(reply) => match reply.outcome {
                AppendOutcome::Accepted { match_index } => {
                    kept.term > message.term || (kept.term == message.term && self.durable() >= match_index)
                }
                AppendOutcome::Rejected { .. } | AppendOutcome::Damaged { .. } => kept.term >= message.term,
            },
            _ => true,
        };
        if !kept_promise {
            return Err(format!("{from} sends {message} to {to} before what it promises is durable"));
        }
        sent.push(envelope);
        Ok(())
    }

    fn durable(&self) -> Index {
        self.disk.entries.last().map_or(Index(0), |entry| entry.index)
    }

    fn sync_one(&mut self, sent: &mut Vec<Envelope>) -> Result<(), Broken> {
        if self.unsynced.is_empty() {
            return Ok(());
        }
        let (id, write) = self.unsynced.remove(0);
        match write {
            Write::HardState(state) => {
                let old = std::mem::replace(&mut self.disk.hard_state, state);
                let keeps = state.term > old.term
                    || (state.term == old.term && (old.voted_for.is_none() || old.voted_for == state.voted_for));
                if !keeps {
                    return Err(format!("{} overwrites its vote in {}", self.raft.id(), old.term));
                }
            }
            Write::Truncate { from } => self.disk.entries.retain(|entry| entry.index < from),
            Write::Append(entries) => self.disk.entries.extend(entries),
            Write::Snapshot(_) => return Err("there are no snapshots".to_owned()),
            Write::Repaired | Write::Suspect { .. } => return Err("no disk loses anything in this search".to_owned()),
        }
        let (free, parked) = std::mem::take(&mut self.parked).into_iter().partition(|(after, _)| *after <= id);
        self.parked = parked;
        for (_, envelope) in free {
            self.leaves(envelope, sent)?;
        }
        self.feed(MOMENT, Input::Persisted { up_to: id }, sent)
    }

    /// Removes time from the state, and renumbers the writes.
    fn rest(&mut self) {
        let shift = self.raft.rest();
        self.unsynced.iter_mut().for_each(|(id, _)| id.0 -= shift);
        self.parked.iter_mut().for_each(|(id, _)| id.0 -= shift);
        self.parked.iter_mut().for_each(|(_, envelope)| envelope.message.rest());
        self.sort_parked();
    }

    /// Sorts the waiting messages, because their order makes no difference.
    fn sort_parked(&mut self) {
        self.parked.sort_by_key(|(after, envelope)| (*after, envelope.to));
    }

    fn moved_forward(&self, next: &Replica) -> Result<(), Broken> {
        let (id, old, new) = (self.raft.id(), &self.raft, &next.raft);
        if new.term() < old.term() {
            return Err(format!("the term of {id} goes back from {} to {}", old.term(), new.term()));
        }
        if new.commit_index() < old.commit_index() {
            return Err(format!("the commit index of {id} goes back"));
        }
        Ok(())
    }

    /// The same replica under other names.
    pub(super) fn renamed(&self, names: &[NodeId]) -> Replica {
        let name = |id: NodeId| names[usize::try_from(id.0 - 1).expect("a handful of replicas")];
        let entry = |entry: &Entry| Entry { payload: entry.payload.renamed(names), ..entry.clone() };
        let write = |write: &Write| match write {
            Write::HardState(state) => Write::HardState(HardState { voted_for: state.voted_for.map(name), ..*state }),
            Write::Append(entries) => Write::Append(entries.iter().map(entry).collect()),
            Write::Snapshot(header) => {
                Write::Snapshot(SnapshotHeader { membership: header.membership.renamed(names), ..header.clone() })
            }
            Write::Truncate { from } => Write::Truncate { from: *from },
            Write::Repaired | Write::Suspect { .. } => write.clone(),
        };
        let mut renamed = Replica {
            raft: self.raft.renamed(names),
            disk: Disk {
                hard_state: HardState { voted_for: self.disk.hard_state.voted_for.map(name), ..self.disk.hard_state },
                founders: self.disk.founders.renamed(names),
                entries: self.disk.entries.iter().map(entry).collect(),
            },
            unsynced: self.unsynced.iter().map(|(id, of)| (*id, write(of))).collect(),
            parked: self.parked.iter().map(|(id, envelope)| (*id, envelope.renamed(names))).collect(),
        };
        renamed.sort_parked();
        renamed
    }
}

impl Envelope {
    /// The same message under other names.
    pub(super) fn renamed(&self, names: &[NodeId]) -> Envelope {
        let name = |id: NodeId| names[usize::try_from(id.0 - 1).expect("a handful of replicas")];
        let message = self.message.renamed(self.from, self.to, names);
        Envelope { from: name(self.from), to: name(self.to), message }
    }
}

/// The moment at which everything happens.
const MOMENT: Time = Raft::MOMENT_OF_REST;

fn start(config: Config, disk: &Disk) -> Raft {
    let position = bowline_raft::Position::ORIGIN;
    let recovered = Recovered {
        hard_state: disk.hard_state,
        snapshot: Some(SnapshotHeader { position, membership: disk.founders.clone() }),
        entries: disk.entries.clone(),
        applied: Index(0),
        suspect: None,
    };
    let mut raft = Raft::new(config, recovered, MOMENT).expect("the disk is consistent");
    raft.rest();
    raft
}

fn halted(id: NodeId, fault: &Fault) -> Broken {
    format!("{id} halts: {fault}")
}
