//! The states of the search, and the steps between them.
//!
//! A state is a few numbers: each distinct replica and message is stored only once, and the effect of an event on a
//! replica is computed only once. One state stands for all that differ only in the names of the replicas.

use bowline_raft::{Body, Config, Entry, Group, Index, Membership, MembershipChange, NodeId, Term};

use super::Bounds;
use super::interner::{Interner, Map};
use super::replica::{Broken, Envelope, Event, Replica};
use crate::panics::caught;

/// A state of the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) replicas: Vec<u32>,
    /// The number of its [`Memory`].
    memory: u32,
    pub(super) used: Used,
    /// Messages on their way, in the order of their numbers.
    pub(super) network: Vec<u32>,
}

/// How much of the bounds is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) commands: u8,
    pub(super) crashes: u8,
    pub(super) changes: u8,
    pub(super) doubles: u8,
    pub(super) drops: u8,
}

/// What must be remembered to check later states.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Memory {
    /// By term: the leader; 0 if there was none.
    leaders: Vec<u8>,
    /// By index: the committed entry.
    committed: Vec<u32>,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Deliver(u32),
    /// Delivered, but a copy stays on its way.
    Double(u32),
    Drop(u32),
    /// The first replica has an election timeout. The second one is the first to get its pre-vote.
    TimeOut(usize, usize),
    Heartbeat(usize),
    Propose(usize, u8),
    /// An operator tells the first replica to remove the second.
    Remove(usize, usize),
    Persist(usize),
    Restart(usize),
}

impl Action {
    /// The action as a number.
    pub(super) fn code(self) -> u32 {
        let at = |replica: usize| replica as u32;
        match self {
            Action::Deliver(message) => message,
            Action::Double(message) => 1 << 28 | message,
            Action::Drop(message) => 2 << 28 | message,
            Action::TimeOut(replica, first) => 3 << 28 | at(first) << 8 | at(replica),
            Action::Heartbeat(replica) => 4 << 28 | at(replica),
            Action::Propose(replica, number) => 5 << 28 | u32::from(number) << 8 | at(replica),
            Action::Remove(replica, other) => 6 << 28 | at(other) << 8 | at(replica),
            Action::Persist(replica) => 7 << 28 | at(replica),
            Action::Restart(replica) => 8 << 28 | at(replica),
        }
    }

    /// The action of a number that [`Action::code`] gave.
    pub(super) fn of(code: u32) -> Action {
        let (kind, rest) = (code >> 28, code & 0x0fff_ffff);
        let (low, high) = ((rest & 0xff) as usize, (rest >> 8) as u8);
        match kind {
            0 => Action::Deliver(rest),
            1 => Action::Double(rest),
            2 => Action::Drop(rest),
            3 => Action::TimeOut(low, high.into()),
            4 => Action::Heartbeat(low),
            5 => Action::Propose(low, high),
            6 => Action::Remove(low, high.into()),
            7 => Action::Persist(low),
            _ => Action::Restart(low),
        }
    }
}

/// What the rules need of a replica.
struct Digest {
    term: Term,
    leads: bool,
    commit: usize,
    /// The log's entries, by number.
    log: Vec<u32>,
}

/// The effect of an event on a replica.
type Consequence = Result<(u32, Vec<u32>), Broken>;

/// Everything that the search has seen so far.
pub(super) struct Space {
    pub(super) bounds: Bounds,
    pub(super) replicas: Interner<Replica>,
    digests: Vec<Digest>,
    pub(super) messages: Interner<Envelope>,
    entries: Interner<Entry>,
    memories: Interner<Memory>,
    consequences: Map<u64, u32>,
    outcomes: Vec<Consequence>,
    /// Every way to name the replicas, the identity first.
    namings: Vec<Naming>,
}

struct Naming {
    names: Vec<NodeId>,
    inverse: usize,
    replicas: Vec<u32>,
    messages: Vec<u32>,
    memories: Vec<u32>,
}

const UNKNOWN: u32 = u32::MAX;

impl Space {
    pub(super) fn new(bounds: Bounds) -> Space {
        let ids: Vec<NodeId> = (1..=bounds.replicas as u64).map(NodeId).collect();
        let mut all = permutations(&ids);
        all.truncate(if bounds.symmetry { all.len() } else { 1 });
        let inverse_of = |names: &Vec<NodeId>| {
            let back =
                ids.iter().map(|id| NodeId(names.iter().position(|name| name == id).map_or(0, |at| at as u64 + 1)));
            let back: Vec<NodeId> = back.collect();
            all.iter().position(|other| *other == back).unwrap_or(0)
        };
        let naming = |names: &Vec<NodeId>| Naming {
            inverse: inverse_of(names),
            names: names.clone(),
            replicas: Vec::new(),
            messages: Vec::new(),
            memories: Vec::new(),
        };
        Space {
            namings: all.iter().map(naming).collect(),
            bounds,
            replicas: Interner::default(),
            digests: Vec::new(),
            messages: Interner::default(),
            entries: Interner::default(),
            memories: Interner::default(),
            consequences: Map::default(),
            outcomes: Vec::new(),
        }
    }

    /// The initial state.
    pub(super) fn fresh(&mut self) -> State {
        let ids = (1..=self.bounds.replicas as u64).map(NodeId);
        let founders = Membership::simple(Group::of_voters(ids.clone()));
        let configs: Vec<Config> = ids.map(|id| self.bounds.config(id)).collect();
        let replicas = configs.into_iter().map(|config| Replica::founding(config, &founders));
        let replicas: Vec<Replica> = replicas.collect();
        State {
            replicas: replicas.into_iter().map(|replica| self.number(replica)).collect(),
            memory: self.memories.number(Memory::default()),
            used: Used::default(),
            network: Vec::new(),
        }
    }

    fn number(&mut self, replica: Replica) -> u32 {
        let raft = &replica.raft;
        let digest = Digest {
            term: raft.term(),
            leads: raft.is_leader(),
            commit: raft.commit_index().0 as usize,
            log: raft.log().iter().map(|entry| self.entries.number(entry.clone())).collect(),
        };
        let number = self.replicas.number(replica);
        if number as usize == self.digests.len() {
            self.digests.push(digest);
        }
        number
    }

    /// Every step that the bounds allow in a state.
    pub(super) fn actions(&self, state: &State) -> Vec<Action> {
        let (bounds, used) = (&self.bounds, state.used);
        let mut actions: Vec<Action> = state.network.iter().map(|message| Action::Deliver(*message)).collect();
        if used.doubles < bounds.doubles {
            actions.extend(state.network.iter().map(|message| Action::Double(*message)));
        }
        if used.drops < bounds.drops {
            actions.extend(state.network.iter().map(|message| Action::Drop(*message)));
        }
        for (at, replica) in state.replicas.iter().enumerate() {
            let digest = &self.digests[*replica as usize];
            if digest.leads {
                actions.push(Action::TimeOut(at, at));
            } else if digest.term.0 < bounds.terms {
                let others = (0..state.replicas.len()).filter(|other| *other != at);
                actions.extend(others.map(|first| Action::TimeOut(at, first)));
            }
            if digest.leads {
                actions.push(Action::Heartbeat(at));
                if used.commands < bounds.commands && digest.log.len() < bounds.entries {
                    actions.push(Action::Propose(at, used.commands + 1));
                }
                if used.changes < bounds.changes {
                    actions.extend((0..state.replicas.len()).map(|other| Action::Remove(at, other)));
                }
            }
            if !bounds.instant_disk && self.replicas.get(*replica).is_writing() {
                actions.push(Action::Persist(at));
            }
            if used.crashes < bounds.crashes && digest.term.0 > 0 {
                actions.push(Action::Restart(at));
            }
        }
        actions
    }

    /// The state after a step; `None` if it is beyond the bounds.
    pub(super) fn after(&mut self, state: &State, action: Action) -> Result<Option<State>, Broken> {
        let mut next = state.clone();
        let used = &mut next.used;
        let event = match action {
            Action::Drop(message) => {
                used.drops += 1;
                next.network.retain(|other| *other != message);
                return Ok(Some(next));
            }
            Action::Double(message) => {
                used.doubles += 1;
                Action::Deliver(message)
            }
            Action::Deliver(message) => {
                next.network.retain(|other| *other != message);
                action
            }
            Action::Propose(..) => {
                used.commands += 1;
                action
            }
            Action::Remove(..) => {
                used.changes += 1;
                action
            }
            Action::Restart(_) => {
                used.crashes += 1;
                action
            }
            Action::TimeOut(..) | Action::Heartbeat(_) | Action::Persist(_) => action,
        };
        self.happens(&mut next, event)?;
        let fits = next.network.len() <= self.bounds.in_flight
            && next.replicas.iter().all(|replica| self.digests[*replica as usize].log.len() <= self.bounds.entries);
        Ok(fits.then_some(next))
    }

    /// Carries out an event and what follows at once: the pre-votes of a timeout and their answers arrive at once,
    /// unless one of them waits for a disk.
    fn happens(&mut self, state: &mut State, event: Action) -> Result<(), Broken> {
        let at_once = matches!(event, Action::TimeOut(..));
        let mut queue = std::collections::VecDeque::from([event]);
        while let Some(event) = queue.pop_front() {
            let at = match event {
                Action::Deliver(message) => self.messages.get(message).to.0 as usize - 1,
                Action::Heartbeat(at) | Action::Propose(at, _) => at,
                Action::TimeOut(at, _) | Action::Remove(at, _) | Action::Persist(at) | Action::Restart(at) => at,
                Action::Double(_) | Action::Drop(_) => continue,
            };
            let before = state.replicas[at];
            let outcome = self.consequence(before, event);
            let (replica, sent) = self.outcomes[outcome as usize].clone()?;
            state.replicas[at] = replica;
            if replica != before {
                self.judge(state, at)?;
            }
            let mut sent = sent;
            if let Action::TimeOut(_, first) = event {
                sent.sort_by_key(|message| self.messages.get(*message).to.0 != first as u64 + 1);
            }
            for message in sent {
                match &self.messages.get(message).message.body {
                    Body::PreVote { .. } | Body::PreVoteReply { .. } if at_once => {
                        queue.push_back(Action::Deliver(message))
                    }
                    _ => {
                        if let Err(place) = state.network.binary_search(&message) {
                            state.network.insert(place, message);
                        }
                    }
                }
            }
            if self.bounds.instant_disk && self.replicas.get(replica).is_writing() {
                queue.push_front(Action::Persist(at));
            }
        }
        Ok(())
    }

    /// The effect of an event on a replica, computed only once.
    fn consequence(&mut self, replica: u32, event: Action) -> u32 {
        // The order of the answers makes no difference to the step itself.
        let event = if let Action::TimeOut(at, _) = event { Action::TimeOut(at, 0) } else { event };
        let key = u64::from(replica) << 32 | u64::from(event.code());
        if let Some(known) = self.consequences.get(&key) {
            return *known;
        }
        let event = self.event(event);
        let shared = self.replicas.share(replica);
        let outcome = match caught(|| shared.after(event)) {
            Ok(outcome) => outcome,
            Err(panic) => Err(format!("assertion: {}", panic.said)),
        };
        let outcome = outcome.map(|(replica, sent)| {
            let sent = sent.into_iter().map(|mut envelope| {
                envelope.message.rest();
                self.messages.number(envelope)
            });
            let sent = sent.collect();
            (self.number(replica), sent)
        });
        let number = self.outcomes.len() as u32;
        self.outcomes.push(outcome);
        self.consequences.insert(key, number);
        number
    }

    fn event(&self, action: Action) -> Event {
        match action {
            Action::Deliver(message) | Action::Double(message) | Action::Drop(message) => {
                let envelope = self.messages.get(message);
                Event::Receive { from: envelope.from, message: envelope.message.clone() }
            }
            Action::TimeOut(..) => Event::TimeOut,
            Action::Heartbeat(_) => Event::Heartbeat,
            Action::Propose(_, number) => Event::Propose(number),
            Action::Remove(_, other) => Event::Change(MembershipChange::Remove(NodeId(other as u64 + 1))),
            Action::Persist(_) => Event::Persist,
            Action::Restart(_) => Event::Restart,
        }
    }
}

/// The rules (Figure 3).
impl Space {
    fn judge(&mut self, state: &mut State, at: usize) -> Result<(), Broken> {
        let id = NodeId(at as u64 + 1);
        let digest = &self.digests[state.replicas[at] as usize];
        let memory = self.memories.get(state.memory);
        for (other, replica) in state.replicas.iter().enumerate().filter(|(other, _)| *other != at) {
            let other_log = &self.digests[*replica as usize].log;
            if !self.logs_match(&digest.log, other_log) {
                return Err(format!("the logs of {id} and n{} don't match (Log Matching)", other + 1));
            }
        }
        let known = memory.committed.len().min(digest.commit);
        if digest.log[..known] != memory.committed[..known] {
            return Err(format!("{id} has committed another entry than was committed before (State Machine Safety)"));
        }
        let grown = digest.commit > memory.committed.len();
        let term = digest.term.0 as usize;
        let led = memory.leaders.get(term).copied().unwrap_or(0);
        if digest.leads && led != 0 && u64::from(led) != id.0 {
            return Err(format!("n{led} and {id} both lead {} (Election Safety)", digest.term));
        }
        if digest.leads && term + 1 >= memory.leaders.len() && !digest.log.starts_with(&memory.committed) {
            return Err(format!("{id} leads {} without all that is committed (Leader Completeness)", digest.term));
        }
        if grown || (digest.leads && led == 0) {
            let mut memory = memory.clone();
            if grown {
                memory.committed = digest.log[..digest.commit].to_vec();
            }
            if digest.leads {
                memory.leaders.resize(memory.leaders.len().max(term + 1), 0);
                memory.leaders[term] = id.0 as u8;
            }
            state.memory = self.memories.number(memory);
        }
        Ok(())
    }

    /// Whether two logs are equal up to the last index at which they have the same term.
    fn logs_match(&self, a: &[u32], b: &[u32]) -> bool {
        let term = |entry: u32| self.entries.get(entry).term;
        let shared = a.len().min(b.len());
        let agree = (0..shared).rev().find(|at| term(a[*at]) == term(b[*at]));
        agree.is_none_or(|at| a[..=at] == b[..=at])
    }
}

/// Names of replicas.
impl Space {
    /// The state that stands for all that differ from this one only in names, as numbers, and the naming that leads to
    /// it.
    pub(super) fn canonical(&mut self, state: &State) -> (Vec<u32>, usize) {
        let mut best = self.encoded(state, 0);
        let mut by = 0;
        for naming in 1..self.namings.len() {
            let renamed = self.encoded(state, naming);
            if renamed < best {
                (best, by) = (renamed, naming);
            }
        }
        (best, by)
    }

    /// The state under other names, as numbers.
    pub(super) fn encoded(&mut self, state: &State, naming: usize) -> Vec<u32> {
        let count = state.replicas.len();
        let mut code = vec![0; count + 2];
        for (at, replica) in state.replicas.iter().enumerate() {
            let to = self.namings[naming].names[at].0 as usize - 1;
            code[to] = self.renamed_replica(*replica, naming);
        }
        code[count] = self.renamed_memory(state.memory, naming);
        let used = state.used;
        code[count + 1] = [used.commands, used.crashes, used.changes, used.doubles, used.drops]
            .iter()
            .fold(0, |code, count| code << 5 | u32::from(*count));
        code.extend(state.network.iter().map(|message| self.renamed_message(*message, naming)));
        code[count + 2..].sort_unstable();
        code
    }

    /// The state that these numbers encode.
    pub(super) fn decoded(&self, code: &[u32]) -> State {
        let count = self.bounds.replicas;
        let used = |place: u32| (code[count + 1] >> (5 * place) & 31) as u8;
        let used = Used { commands: used(4), crashes: used(3), changes: used(2), doubles: used(1), drops: used(0) };
        let (replicas, network) = (code[..count].to_vec(), code[count + 2..].to_vec());
        State { replicas, memory: code[count], used, network }
    }

    /// The number of namings.
    #[cfg(test)]
    pub(super) fn namings(&self) -> usize {
        self.namings.len()
    }

    fn renamed_replica(&mut self, replica: u32, naming: usize) -> u32 {
        if naming == 0 {
            return replica;
        }
        if let Some(known) = known(&self.namings[naming].replicas, replica) {
            return known;
        }
        let renamed = self.replicas.get(replica).renamed(&self.namings[naming].names);
        let renamed = self.number(renamed);
        let inverse = self.namings[naming].inverse;
        note(&mut self.namings[naming].replicas, replica, renamed);
        note(&mut self.namings[inverse].replicas, renamed, replica);
        renamed
    }

    fn renamed_message(&mut self, message: u32, naming: usize) -> u32 {
        if naming == 0 {
            return message;
        }
        if let Some(known) = known(&self.namings[naming].messages, message) {
            return known;
        }
        let renamed = self.messages.get(message).renamed(&self.namings[naming].names);
        let renamed = self.messages.number(renamed);
        note(&mut self.namings[naming].messages, message, renamed);
        renamed
    }

    fn renamed_memory(&mut self, memory: u32, naming: usize) -> u32 {
        if naming == 0 {
            return memory;
        }
        if let Some(known) = known(&self.namings[naming].memories, memory) {
            return known;
        }
        let names = self.namings[naming].names.clone();
        let mut renamed = self.memories.get(memory).clone();
        for leader in renamed.leaders.iter_mut().filter(|leader| **leader != 0) {
            *leader = names[usize::from(*leader) - 1].0 as u8;
        }
        for entry in &mut renamed.committed {
            let old = self.entries.get(*entry);
            let new = Entry { payload: old.payload.renamed(&names), ..old.clone() };
            *entry = self.entries.number(new);
        }
        let renamed = self.memories.number(renamed);
        note(&mut self.namings[naming].memories, memory, renamed);
        renamed
    }

    /// Translates an action of the canonical state back to the names before `naming`.
    pub(super) fn called_before(&mut self, action: Action, naming: usize) -> Action {
        let inverse = self.namings[naming].inverse;
        self.called_after(action, inverse)
    }

    /// Translates an action to the names of a naming.
    pub(super) fn called_after(&mut self, action: Action, naming: usize) -> Action {
        let names = self.namings[naming].names.clone();
        let at = |replica: usize| names[replica].0 as usize - 1;
        match action {
            Action::Deliver(message) => Action::Deliver(self.renamed_message(message, naming)),
            Action::Double(message) => Action::Double(self.renamed_message(message, naming)),
            Action::Drop(message) => Action::Drop(self.renamed_message(message, naming)),
            Action::TimeOut(replica, first) => Action::TimeOut(at(replica), at(first)),
            Action::Heartbeat(replica) => Action::Heartbeat(at(replica)),
            Action::Propose(replica, number) => Action::Propose(at(replica), number),
            Action::Remove(replica, other) => Action::Remove(at(replica), at(other)),
            Action::Persist(replica) => Action::Persist(at(replica)),
            Action::Restart(replica) => Action::Restart(at(replica)),
        }
    }

    /// The commit index of a replica in a state.
    pub(super) fn committed(&self, state: &State, at: usize) -> Index {
        Index(self.digests[state.replicas[at] as usize].commit as u64)
    }
}

fn known(table: &[u32], number: u32) -> Option<u32> {
    table.get(number as usize).copied().filter(|known| *known != UNKNOWN)
}

fn note(table: &mut Vec<u32>, number: u32, is: u32) {
    let at = number as usize;
    if table.len() <= at {
        table.resize(at + 1 + at / 2, UNKNOWN);
    }
    table[at] = is;
}

/// Every order of `ids`, the given one first.
fn permutations(ids: &[NodeId]) -> Vec<Vec<NodeId>> {
    if ids.len() < 2 {
        return vec![ids.to_vec()];
    }
    let mut all = Vec::new();
    for first in 0..ids.len() {
        let mut rest = ids.to_vec();
        let head = rest.remove(first);
        for mut tail in permutations(&rest) {
            tail.insert(0, head);
            all.push(tail);
        }
    }
    all
}
