//! The checker: splits each step of the core into transitions of the model.
//!
//! The writes of a step show the order in which its term, vote and log changed, so each write is matched with a
//! transition that may cause it. What is not written (role, leader, commit index) is matched where it first shows: in a
//! message, in an applied entry, or in the state after the step.

use std::collections::BTreeMap;

use bowline_raft::{AppendEntries, Body, Effect, Index, Input, Message, NodeId, PersistId, Position, Raft, Term, Time};

use super::ledger::Ledger;
use super::rule::{Checked, Deviation, Rule, check};
use super::server::{Ballot, Role, Server};

/// The model of a whole cluster, which runs beside the replicas.
///
/// See the [module](super) for what to call when.
#[derive(Clone, Debug, Default)]
pub struct Lockstep {
    steps: u64,
    ledger: Ledger,
    servers: BTreeMap<NodeId, Box<Server>>,
    violation: Option<Deviation>,
}

impl Lockstep {
    /// The model of a cluster before it starts.
    #[must_use]
    pub fn new() -> Lockstep {
        Lockstep::default()
    }

    /// Number of steps that were checked.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The first violation, if there was one. Nothing is checked after it.
    #[must_use]
    pub fn violation(&self) -> Option<&Deviation> {
        self.violation.as_ref()
    }

    /// A replica has started, for the first time or again: call it right after [`Raft::new`].
    ///
    /// # Errors
    /// It has forgotten something durable without noticing, or invented something.
    pub fn started(&mut self, raft: &Raft) -> Result<(), Deviation> {
        let checked = self.check_start(raft);
        let mut server = Box::new(Server::of(raft));
        if let Some(before) = self.servers.get(&raft.id()).filter(|before| before.may_owe(raft)) {
            server.durable.owed = before.owes(raft);
        }
        self.servers.insert(raft.id(), server);
        self.judge(raft.id(), checked)
    }

    /// The disk of a replica is replaced by an empty one. Nobody may count on what it held: the replica was removed
    /// from the cluster, or comes back under a new name.
    pub fn replaced(&mut self, id: NodeId) {
        self.servers.remove(&id);
    }

    /// The disk of a replica is replaced by an older image, without its knowing. What is missing counts as owed until
    /// the replica is repaired. This model doesn't check that the replica notices.
    pub fn rolled_back(&mut self, id: NodeId) {
        if let Some(server) = self.servers.get_mut(&id) {
            server.rolled_back = true;
        }
        self.ledger.forget_votes(id);
    }

    /// The writes of a replica up to this one are durable. [`Input::Persisted`] says the same; this is
    /// for a host whose disk is ready (and lets messages go) before the replica hears of it.
    pub fn durable(&mut self, id: NodeId, up_to: PersistId) {
        let Some(server) = self.servers.get_mut(&id) else { return };
        let checked = settle(server, &mut self.ledger, up_to);
        // The violation is kept for the next call.
        let _ = self.judge(id, checked);
    }

    /// A replica has taken a step: `raft` after it, what it was given, and everything that came out
    /// of this one call of [`Raft::handle`].
    ///
    /// # Errors
    /// This step, or an earlier one, is not a step of the model.
    pub fn step(&mut self, raft: &Raft, now: Time, input: &Input, effects: &[Effect]) -> Result<(), Deviation> {
        if let Some(violation) = &self.violation {
            return Err(violation.clone());
        }
        self.steps += 1;
        let id = raft.id();
        let Some(mut server) = self.servers.remove(&id) else {
            let unknown = (Rule::Refinement, "takes a step but has never started".to_owned());
            return self.judge(id, Err(unknown));
        };
        server.now = server.now.max(now);
        let promised = server.role == Role::Leader
            || server.leader_contact.is_some_and(|at| server.now < at.after(raft.config().election_timeout_min));
        let (message, from) = match input {
            Input::Receive { from, message } => (Some(message), Some(*from)),
            _ => (None, None),
        };
        let (ledger, others) = (&mut self.ledger, &self.servers);
        let count = self.steps;
        let mut step =
            Step { ledger, others, server: &mut server, raft, input, message, from, promised, count, touched: None };
        let checked = step.run(effects);
        self.servers.insert(id, server);
        self.judge(id, checked)
    }

    /// Calls [`Raft::handle`] and checks the step. `out` may hold effects of earlier inputs.
    ///
    /// # Errors
    /// Like [`Lockstep::step`]; the step was taken nevertheless.
    pub fn drive(
        &mut self,
        raft: &mut Raft,
        now: Time,
        input: Input,
        out: &mut bowline_raft::Effects,
    ) -> Result<(), Deviation> {
        let (given, earlier) = (input.clone(), out.as_slice().len());
        raft.handle(now, input, out);
        self.step(raft, now, &given, &out.as_slice()[earlier..])
    }

    fn check_start(&mut self, raft: &Raft) -> Checked {
        if let Some(candidate) = raft.voted_for() {
            self.ledger.voted(raft.id(), raft.term(), candidate)?;
        }
        let Some(server) = self.servers.get(&raft.id()) else { return self.ledger.adopt(raft) };
        let durable = &server.durable;
        let lost = raft.suspect().is_some() && raft.term() >= durable.ballot.term;
        // A snapshot from a leader that was stored already may reach beyond the log. It then replaces the log, with
        // everything that the log had.
        let base = raft.log().base();
        let restored = base == raft.log().last()
            && base.index >= durable.log.last().index
            && self.ledger.committed_at(base.index) == Some(base.term)
            && raft.term() >= durable.ballot.term;
        check(lost || restored || server.rolled_back || server.recovers_as(raft), Rule::Restart, || {
            let (ballot, vote) = (durable.ballot, raft.voted_for());
            format!(
                "starts in {} with the vote {vote:?} and the log up to {}; {}, {:?} and {} were durable, and {} writes were under way",
                raft.term(),
                raft.log().last(),
                ballot.term,
                ballot.voted_for,
                durable.log.last(),
                server.pending.len()
            )
        })?;
        let commit = raft.commit_index();
        let agreed = self.ledger.committed_at(commit);
        check(commit == Index(0) || agreed == raft.log().term_at(commit), Rule::Restart, || {
            format!("starts with the commit index {commit}, but {agreed:?} is committed there")
        })?;
        let forged = raft.log().iter().find(|entry| !self.ledger.holds(entry, None));
        check(forged.is_none(), Rule::Restart, || format!("starts with an entry that nobody created: {forged:?}"))
    }

    fn judge(&mut self, replica: NodeId, checked: Checked) -> Result<(), Deviation> {
        let Err((rule, what)) = checked else { return Ok(()) };
        let violation = Deviation { step: self.steps, replica, rule, what };
        self.violation.get_or_insert_with(|| violation.clone());
        Err(violation)
    }
}

/// Writes are durable, so the votes among them may be sent from now on.
fn settle(server: &mut Server, ledger: &mut Ledger, up_to: PersistId) -> Checked {
    for Ballot { term, voted_for } in server.persisted(up_to) {
        if let Some(candidate) = voted_for {
            ledger.voted(server.id, term, candidate)?;
        }
    }
    Ok(())
}

/// One call of [`Raft::handle`].
pub(super) struct Step<'a> {
    pub(super) ledger: &'a mut Ledger,
    /// All other servers.
    pub(super) others: &'a BTreeMap<NodeId, Box<Server>>,
    pub(super) server: &'a mut Server,
    /// The core after the step.
    pub(super) raft: &'a Raft,
    pub(super) input: &'a Input,
    pub(super) message: Option<&'a Message>,
    pub(super) from: Option<NodeId>,
    /// Whether it had heard a leader too recently to vote.
    pub(super) promised: bool,
    count: u64,
    /// The first index of the log that the step wrote.
    pub(super) touched: Option<Index>,
}

impl Step<'_> {
    fn run(&mut self, effects: &[Effect]) -> Checked {
        self.take_input()?;
        for effect in effects {
            match effect {
                Effect::Persist { id, write } => self.wrote(*id, write)?,
                Effect::Send { to, message, after } => self.said(*to, message, *after)?,
                Effect::Apply { entries } => self.applies(entries)?,
                Effect::InstallSnapshot { snapshot } => self.installs(snapshot.position)?,
                Effect::FetchSnapshot { .. } => self.leads(Rule::Message, "sends a snapshot")?,
                Effect::Answer { token, outcome } => self.answers(*token, outcome)?,
                Effect::Halt { fault } => return Err((Rule::Halt, format!("halts: {fault}"))),
            }
        }
        self.advance_commit(self.raft.commit_index())?;
        self.settle_role()?;
        self.heeds_the_term()?;
        self.compact()?;
        self.compare()
    }

    fn take_input(&mut self) -> Checked {
        if let Input::Persisted { up_to } = self.input {
            let (up_to, written) = (*up_to, self.server.written);
            check(up_to <= written, Rule::Persist, || format!("is told that {up_to:?} of {written:?} is durable"))?;
            settle(self.server, self.ledger, up_to)?;
        }
        let Some((from, message)) = self.from.zip(self.message) else { return Ok(()) };
        if message.term != self.server.ballot.term {
            return Ok(());
        }
        match message.body {
            Body::RequestVoteReply { granted: true }
                if self.server.role == Role::Candidate
                // Only a vote that was really given to it counts.
                && self.ledger.vote_of(from, message.term) == Some(self.server.id) =>
            {
                self.server.votes.insert(from);
            }
            Body::PreVoteReply { granted: true } => {
                self.server.pre_votes.insert(from);
            }
            _ => {}
        }
        Ok(())
    }

    /// The AppendEntries of the current term that this step is about, and its last position.
    pub(super) fn append(&self) -> Option<(&AppendEntries, Position)> {
        let Message { term, body: Body::AppendEntries(append) } = self.message? else { return None };
        let mut end = append.prev;
        for entry in &append.entries {
            if entry.index.0.checked_sub(1) != Some(end.index.0) || entry.term < end.term {
                return None;
            }
            end = entry.position();
        }
        (*term == self.server.ballot.term).then_some((append, end))
    }

    /// The snapshot of the current term that this step is about.
    pub(super) fn snapshot(&self) -> Option<&bowline_raft::SnapshotHeader> {
        match self.message? {
            Message { term, body: Body::InstallSnapshot(install) } if *term == self.server.ballot.term => {
                Some(&install.snapshot)
            }
            _ => None,
        }
    }

    /// Part of `HandleAppendEntriesRequest`: returns to follower state.
    pub(super) fn follow(&mut self) -> Checked {
        let (term, id, from) = (self.server.ballot.term, self.server.id, self.from);
        let elected = self.ledger.leader_of(term);
        check(elected.is_some() && elected == from, Rule::Follow, || {
            format!("follows {from:?} in {term}, but {elected:?} was elected in it")
        })?;
        check(elected != Some(id), Rule::Follow, || format!("follows itself in {term}"))?;
        self.server.role = Role::Follower;
        self.server.leader = elected;
        Ok(())
    }

    pub(super) fn leads(&self, rule: Rule, what: &str) -> Checked {
        check(self.server.role == Role::Leader, rule, || format!("{what} without being leader"))
    }

    /// The rule for all servers: one that hears of a higher term enters it. Vote requests may be ignored, and a read
    /// index request promises nothing.
    fn heeds_the_term(&mut self) -> Checked {
        let Some(Message { term, body }) = self.message else { return Ok(()) };
        let binding = matches!(
            body,
            Body::AppendEntries(_) | Body::AppendEntriesReply(_) | Body::RequestVoteReply { .. } | Body::TimeoutNow
        );
        let (heard, own) = (*term, self.server.ballot.term);
        // A replica that has come back ignores a peer that has not told it what it remembers.
        let binding = binding && self.from.is_none_or(|from| self.raft.has_met(from));
        check(!binding || own >= heard || heard > Term::GREATEST, Rule::UpdateTerm, || {
            format!("stays in {own} after it heard of {heard}")
        })
    }

    /// Checks the role after the step. Stepping down is always allowed: it is like a restart that forgets nothing.
    fn settle_role(&mut self) -> Checked {
        let (leads, leader, me) = (self.raft.is_leader(), self.raft.leader(), self.server.id);
        if leads {
            return self.leads(Rule::BecomeLeader, "leads without an entry of its own in this term, or");
        }
        if self.server.role == Role::Leader {
            self.server.role = Role::Follower;
            self.server.leader = None;
        }
        check(leader != Some(me), Rule::Follow, || "names itself as the leader but doesn't lead".to_owned())?;
        if leader.is_some() && leader != self.server.leader {
            self.follow()?;
            let followed = self.server.leader;
            check(followed == leader, Rule::Follow, || format!("follows {leader:?} where {followed:?} spoke"))?;
        }
        self.learn_what_matches();
        Ok(())
    }

    /// Learns from an accepted message that the log equals the leader's up to the message's end.
    pub(super) fn learn_what_matches(&mut self) {
        let shown = self.append().map(|(_, end)| end).or(self.snapshot().map(|header| header.position));
        if let Some(end) = shown
            && self.server.leader.is_some()
            && self.server.leader == self.from
            && self.server.matches_at(end)
        {
            self.server.verified = self.server.verified.max(end.index);
        }
    }

    fn compact(&mut self) -> Checked {
        let (base, server) = (self.raft.log().base(), &mut *self.server);
        if base == server.log.base {
            return Ok(());
        }
        let stored = match self.input {
            Input::SnapshotStored { index } => *index,
            _ => Index(0),
        };
        let allowed = base.index <= stored && base.index <= server.commit && server.log.contains(base);
        check(allowed && base.index > server.log.base.index, Rule::Compact, || {
            format!("starts its log after {base} with a snapshot up to {stored} and the commit index {}", server.commit)
        })?;
        server.log.compact_to(base);
        server.configurations.compact_to(base.index);
        Ok(())
    }

    /// Compares the core's state with the model's. Of the log, only what this step wrote and one more entry are
    /// compared.
    fn compare(&mut self) -> Checked {
        let (raft, server) = (self.raft, &mut *self.server);
        let differs = |what: &str, core: String, model: String| {
            Err((Rule::Refinement, format!("has the {what} {core}, but the model has {model}")))
        };
        if (raft.term(), raft.voted_for()) != (server.ballot.term, server.ballot.voted_for) {
            let core = format!("{} {:?}", raft.term(), raft.voted_for());
            return differs("term and vote", core, format!("{:?}", server.ballot));
        }
        if raft.log().last() != server.log.last() {
            return differs("last entry", raft.log().last().to_string(), server.log.last().to_string());
        }
        if self.touched.is_some() && raft.membership() != server.configurations.current() {
            let model = server.configurations.current().to_string();
            return differs("configuration", raft.membership().to_string(), model);
        }
        server.leader_contact = raft.leader_contact();
        let (first, last) = (server.log.base.index.next(), server.log.last().index);
        let from = self.touched.unwrap_or(last.next()).max(first);
        let any = first.plus((self.count % (server.log.len() as u64).max(1)) as usize);
        for index in (from.0..=last.0).chain([any.0]).map(Index).filter(|index| *index <= last) {
            let core = raft.log().entry(index);
            let same = core.is_some_and(|entry| Some(entry.term) == server.log.term_at(index));
            if !same || !core.is_some_and(|entry| self.ledger.holds(entry, None)) {
                return differs("entry", format!("{core:?}"), format!("{index}@{:?}", server.log.term_at(index)));
            }
        }
        Ok(())
    }
}
