//! The transitions of the model that change a server, each with its guard.

use bowline_raft::{
    Body, Entry, HardState, Index, Input, Membership, Message, Outcome, Payload, PersistId, Position, SnapshotHeader,
    Term, Token, Write,
};

use super::lockstep::Step;
use super::rule::{Checked, Rule, check, named};
use super::server::{Ballot, Role};

/// Term, vote and log.
impl Step<'_> {
    pub(super) fn wrote(&mut self, id: PersistId, write: &Write) -> Checked {
        let next = PersistId(self.server.written.0 + 1);
        check(id == next, Rule::Persist, || format!("writes {id:?}, but {next:?} is next"))?;
        match write {
            Write::HardState(state) => self.hard_state(*state)?,
            Write::Truncate { from } => self.truncate(*from)?,
            Write::Append(entries) if self.server.role == Role::Follower => self.take_entries(entries)?,
            // A candidate that hears the leader returns to follower state first.
            Write::Append(entries) if self.append().is_some_and(|(append, _)| !append.entries.is_empty()) => {
                self.take_entries(entries)?;
            }
            Write::Append(entries) => self.create(entries)?,
            Write::Snapshot(header) => self.replace_log(header)?,
            Write::Repaired => self.repaired()?,
            Write::Suspect { .. } => {
                let told = matches!(self.message, Some(Message { body: Body::Remembered { .. }, .. }));
                check(told, Rule::Restart, || "calls itself suspect, but no peer told it so".to_owned())?;
                self.server.suspect = true;
            }
        }
        self.server.write(id, write);
        Ok(())
    }

    /// A replica declares itself repaired: no committed entry that it acknowledged may be missing.
    fn repaired(&mut self) -> Checked {
        for owed in &self.server.durable.owed {
            let indices = (owed.base.index.0..=owed.last().index.0).map(Index);
            let owed = indices.filter_map(|index| Some(Position::new(index, owed.term_at(index)?)));
            let mut committed = owed.filter(|it| self.ledger.committed_at(it.index) == Some(it.term));
            let log = &self.server.log;
            let missing = committed.find(|it| it.index > log.base.index && !log.contains(*it));
            check(missing.is_none(), Rule::Restart, || {
                format!(
                    "calls itself repaired without {}, which was committed with its copy",
                    missing.unwrap_or(Position::ORIGIN)
                )
            })?;
        }
        self.server.suspect = false;
        Ok(())
    }

    fn touch(&mut self, from: Index) {
        self.touched = Some(self.touched.map_or(from, |touched| touched.min(from)));
    }

    fn hard_state(&mut self, state: HardState) -> Checked {
        let Ballot { term, voted_for } = self.server.ballot;
        let HardState { term: new_term, voted_for: vote } = state;
        if new_term > term && vote.is_none() {
            return self.update_term(new_term);
        }
        if new_term == term.next() && vote == Some(self.server.id) {
            return self.timeout();
        }
        // A server that has lost its vote adopts one for the elected leader.
        let after_loss = matches!(self.message, Some(Message { body: Body::Remembered { .. }, .. }));
        if self.server.suspect && after_loss && new_term == term && voted_for.is_none() {
            let elected = self.ledger.leader_of(term);
            check(elected.is_some() && vote == elected, Rule::GrantVote, || {
                format!("adopts the vote for {vote:?} in {term}, but {elected:?} was elected in it")
            })?;
            self.server.ballot.voted_for = vote;
            return Ok(());
        }
        let grants = new_term == term && voted_for.is_none() && vote == self.from && vote.is_some();
        check(grants, Rule::GrantVote, || format!("goes from {term} and the vote {voted_for:?} to {state:?}"))?;
        self.may_grant()?;
        self.server.ballot.voted_for = vote;
        Ok(())
    }

    fn update_term(&mut self, term: Term) -> Checked {
        let heard = self.message.map(|message| match message.body {
            Body::Remembered { missing: Some(missing), .. } => missing.max(message.term),
            _ => message.term,
        });
        check(heard == Some(term), Rule::UpdateTerm, || format!("adopts {term} from a message of {heard:?}"))?;
        let asks = match self.message.map(|message| &message.body) {
            Some(Body::RequestVote { transfer, .. }) => !transfer,
            Some(Body::PreVote { .. }) => true,
            _ => false,
        };
        check(!(asks && self.promised), Rule::Stickiness, || format!("adopts {term} from a candidate"))?;
        self.start_term(Ballot { term, voted_for: None }, Role::Follower);
        Ok(())
    }

    fn start_term(&mut self, ballot: Ballot, role: Role) {
        let server = &mut *self.server;
        server.ballot = ballot;
        server.role = role;
        server.leader = None;
        server.verified = Index(0);
        server.votes.clear();
        server.pre_votes.clear();
    }

    /// `Timeout`, after a pre-vote, which changes nothing itself.
    fn timeout(&mut self) -> Checked {
        let server = &*self.server;
        let (me, term) = (server.id, server.ballot.term);
        let told = match self.message {
            Some(message) => message.term == term && matches!(message.body, Body::TimeoutNow),
            None => false,
        };
        check(server.role != Role::Leader, Rule::Timeout, || "stands for election while it leads".to_owned())?;
        check(!server.suspect, Rule::Timeout, || "stands for election with a log that has lost something".to_owned())?;
        check(server.configurations.may_be_voter(me, server.commit), Rule::Timeout, || {
            "stands for election but is not a voter".to_owned()
        })?;
        let would = server.configurations.quorum(|id| id == me || server.pre_votes.contains(&id));
        check(told || would, Rule::Timeout, || {
            format!("stands for election with the pre-votes of {:?} only", server.pre_votes)
        })?;
        self.start_term(Ballot { term: term.next(), voted_for: Some(me) }, Role::Candidate);
        self.server.transfer = told;
        Ok(())
    }

    /// The guard of a vote for the sender of this step's message.
    pub(super) fn may_grant(&self) -> Checked {
        let (server, term) = (&*self.server, self.server.ballot.term);
        let asked = match self.message {
            Some(message) if message.term == term => match message.body {
                Body::RequestVote { last, transfer } => Some((last, transfer)),
                _ => None,
            },
            _ => None,
        };
        let Some((last, transfer)) = asked else {
            return Err((Rule::GrantVote, format!("votes in {term} for {}, which has not asked", named(self.from))));
        };
        check(last >= server.log.last(), Rule::GrantVote, || {
            format!(
                "votes for {} with the log up to {last}, while its own ends at {}",
                named(self.from),
                server.log.last()
            )
        })?;
        check(transfer || !self.promised, Rule::Stickiness, || format!("votes for {} in {term}", named(self.from)))?;
        check(!server.suspect, Rule::GrantVote, || "votes with a log that has lost something".to_owned())?;
        check(server.role != Role::Leader, Rule::GrantVote, || "votes while it leads".to_owned())
    }

    /// `BecomeLeader`, with a majority of each half of the configuration in force.
    fn become_leader(&mut self) -> Checked {
        let (server, others, ledger) = (&*self.server, self.others, &*self.ledger);
        let (me, ballot) = (server.id, server.ballot);
        let term = ballot.term;
        check(server.role == Role::Candidate && ballot.voted_for == Some(me), Rule::BecomeLeader, || {
            format!("leads in {term} without having stood for election in it")
        })?;
        let stands = |voter: Ballot| voter.term > term || (voter.term == term && voter.voted_for == Some(me));
        let voted = |id| match others.get(&id) {
            _ if id == me => stands(server.durable.ballot),
            Some(voter) => server.votes.contains(&id) && stands(voter.durable.ballot),
            None => server.votes.contains(&id) && ledger.vote_of(id, term) == Some(me),
        };
        let membership = server.configurations.current();
        check(server.configurations.quorum(voted), Rule::BecomeLeader, || {
            let durable: Vec<_> = membership.voters().into_iter().filter(|id| voted(*id)).collect();
            format!("leads in {term} with the durable votes of only {durable:?} in {membership}")
        })?;
        self.ledger.elected(term, me, &self.server.log)?;
        self.server.role = Role::Leader;
        self.server.leader = Some(me);
        Ok(())
    }

    /// `ClientRequest`: a leader appends to its own log.
    fn create(&mut self, entries: &[Entry]) -> Checked {
        let [entry] = entries else {
            return Err((Rule::ClientRequest, format!("creates {} entries at once", entries.len())));
        };
        if self.server.role == Role::Candidate && entry.payload == Payload::Blank {
            self.become_leader()?;
        } else {
            check(entry.payload != Payload::Blank, Rule::ClientRequest, || "creates another blank entry".to_owned())?;
        }
        self.leads(Rule::ClientRequest, "creates an entry")?;
        let (last, term) = (self.server.log.last(), self.server.ballot.term);
        check(entry.index == last.index.next() && entry.term == term, Rule::ClientRequest, || {
            format!("creates {} in {term} after {last}", entry.position())
        })?;
        match &entry.payload {
            Payload::Blank => {}
            Payload::Membership(next) => self.reconfigure(next)?,
            Payload::Command(command) => match self.input {
                Input::Propose { token, command: asked, .. } if asked == command => {
                    self.server.proposals.insert(*token, entry.position());
                }
                _ => return Err((Rule::ClientRequest, "creates a command that nobody proposed".to_owned())),
            },
        }
        self.ledger.created(entry, Some(last.term))?;
        self.push(entry);
        Ok(())
    }

    fn push(&mut self, entry: &Entry) {
        self.touch(entry.index);
        self.server.log.push(entry.term);
        self.server.configurations.append(entry);
    }

    /// The guard of a configuration. Commits of this step count for it.
    fn reconfigure(&mut self, next: &Membership) -> Checked {
        if self.raft.commit_index() <= self.server.log.last().index {
            self.advance_commit(self.raft.commit_index())?;
        }
        let server = &*self.server;
        let current = server.configurations.current();
        let committed = server.configurations.current_is_at_most(server.commit);
        let term_committed = server.log.term_at(server.commit) == Some(server.ballot.term);
        let allowed = match (current.outgoing(), next.outgoing()) {
            // Reverts the joint configuration, or leaves it.
            (Some(_), None) => *next == current.reverted() || (*next == current.left() && committed),
            (Some(_), Some(_)) => false,
            (None, None) => committed && next.incoming().voters == current.incoming().voters,
            (None, Some(outgoing)) => committed && outgoing == current.incoming(),
        };
        let valid = next.incoming().validate().is_ok();
        check(allowed && valid && term_committed, Rule::ChangeMembership, || {
            format!(
                "goes from {current} (committed: {committed}) to {next} in {}, commit index {}",
                server.ballot.term, server.commit
            )
        })
    }

    /// The guard of every change to a follower's log.
    fn after_a_match(&mut self) -> Checked {
        self.follow()?;
        let prev = self.append().map(|(append, _)| append.prev);
        let matches = prev.is_some_and(|prev| self.server.matches_at(prev));
        check(matches, Rule::TakeEntries, || format!("changes its log for a message after {prev:?}"))
    }

    fn truncate(&mut self, from: Index) -> Checked {
        self.after_a_match()?;
        let (server, ledger) = (&*self.server, &*self.ledger);
        let Some((append, _)) = self.append() else { return Ok(()) };
        let conflict = append.entries.iter().find(|entry| !server.matches_at(entry.position()));
        let conflict = conflict.filter(|entry| server.log.term_at(entry.index).is_some());
        check(conflict.is_some_and(|entry| entry.index == from), Rule::Truncate, || {
            format!("removes its entries from {from} on; the first conflict is at {:?}", conflict.map(|e| e.index))
        })?;
        let committed = from <= server.commit || ledger.committed_at(from) == server.log.term_at(from);
        check(!committed, Rule::Truncate, || format!("removes the committed entry {from}"))?;
        self.server.log.truncate_from(from);
        self.server.configurations.truncate_from(from);
        self.touch(from);
        Ok(())
    }

    fn take_entries(&mut self, entries: &[Entry]) -> Checked {
        self.after_a_match()?;
        let (mut before, server) = (self.server.log.last(), &*self.server);
        let Some((append, _)) = self.append() else { return Ok(()) };
        let split = append.entries.iter().position(|entry| entry.index > before.index).unwrap_or(append.entries.len());
        let (known, new) = append.entries.split_at(split);
        let skipped = known.iter().find(|entry| !server.matches_at(entry.position()));
        check(skipped.is_none(), Rule::TakeEntries, || {
            format!("appends after {before} and keeps a conflict at {:?}", skipped.map(|entry| entry.index))
        })?;
        check(new == entries && !entries.is_empty(), Rule::TakeEntries, || {
            format!("appends {} entries after {before}, but the message has {}", entries.len(), new.len())
        })?;
        for entry in entries {
            let real = entry.index == before.index.next() && self.ledger.holds(entry, Some(before.term));
            check(real, Rule::TakeEntries, || {
                format!("appends after {before} an entry that no leader created there: {}", entry.position())
            })?;
            self.push(entry);
            before = entry.position();
        }
        Ok(())
    }

    fn replace_log(&mut self, header: &SnapshotHeader) -> Checked {
        self.follow()?;
        let (position, server) = (header.position, &*self.server);
        check(self.snapshot() == Some(header), Rule::InstallSnapshot, || {
            format!("installs {position}, which its leader did not send")
        })?;
        let lacks = position.index > server.commit && !server.log.contains(position);
        check(lacks, Rule::InstallSnapshot, || {
            format!("replaces its log up to {} by a snapshot up to {position}", server.log.last())
        })?;
        let committed = self.ledger.committed_at(position.index);
        check(committed == Some(position.term), Rule::InstallSnapshot, || {
            format!("installs a snapshot up to {position}, but {committed:?} is committed there")
        })?;
        self.server.log.reset(position);
        self.server.configurations.reset(header.membership.clone());
        self.server.commit = position.index;
        self.touch(Index(0));
        Ok(())
    }
}

/// Commitment, and what follows from it.
impl Step<'_> {
    pub(super) fn advance_commit(&mut self, to: Index) -> Checked {
        let commit = self.server.commit;
        let rule = match self.server.role {
            Role::Leader => Rule::AdvanceCommitIndex,
            Role::Follower | Role::Candidate => Rule::LearnCommitIndex,
        };
        check(to >= commit, rule, || format!("lowers its commit index from {commit} to {to}"))?;
        if to == commit {
            return Ok(());
        }
        if self.server.role == Role::Leader {
            self.leader_commits(to)?
        } else {
            self.follower_commits(to)?
        }
        self.server.commit = to;
        Ok(())
    }

    /// `AdvanceCommitIndex`: a quorum of disks must hold the entry at this moment. A server that acknowledged it to
    /// this leader can't have lost it.
    fn leader_commits(&mut self, to: Index) -> Checked {
        let (server, others) = (&*self.server, self.others);
        let term = server.ballot.term;
        check(server.log.term_at(to) == Some(term), Rule::AdvanceCommitIndex, || {
            format!(
                "commits {to} of {} in {term}",
                server.log.term_at(to).map_or("no term".to_owned(), |term| term.to_string())
            )
        })?;
        let position = Position::new(to, term);
        let holds = |id| match others.get(&id) {
            _ if id == server.id => server.durable.holds(position),
            Some(other) => other.durable.holds(position),
            None => false,
        };
        let membership = server.configurations.current();
        check(server.configurations.quorum(holds), Rule::AdvanceCommitIndex, || {
            let held: Vec<_> = membership.voters().into_iter().filter(|id| holds(*id)).collect();
            format!("commits {position} with the copies of only {held:?} in {membership}")
        })?;
        for index in (self.server.commit.0 + 1..=to.0).map(Index) {
            if let Some(term) = self.server.log.term_at(index) {
                self.ledger.commit(index, term)?;
            }
        }
        Ok(())
    }

    fn follower_commits(&mut self, to: Index) -> Checked {
        let term = self.server.ballot.term;
        if self.append().is_some() || self.snapshot().is_some() {
            self.follow()?;
            self.learn_what_matches();
        }
        let told = match self.message.filter(|message| message.term == term).map(|message| &message.body) {
            Some(Body::AppendEntries(append)) => append.commit_index,
            Some(Body::InstallSnapshot(install)) => install.snapshot.position.index,
            Some(Body::ReadIndexReply { index: Some(index), .. }) => *index,
            _ => Index(0),
        };
        let server = &*self.server;
        check(to <= told && to <= server.verified, Rule::LearnCommitIndex, || {
            format!("commits {to}, but was told of {told}, and its log is known to match up to {}", server.verified)
        })?;
        let (own, agreed) = (server.log.term_at(to), self.ledger.committed_at(to));
        check(own.is_some() && own == agreed, Rule::LearnCommitIndex, || {
            format!("commits {to} of {own:?}, but {agreed:?} is committed there")
        })
    }

    pub(super) fn applies(&mut self, entries: &[Entry]) -> Checked {
        self.advance_commit(self.raft.commit_index())?;
        for entry in entries {
            let (server, position) = (&mut *self.server, entry.position());
            let next = entry.index == server.handed.next() && entry.index <= server.commit;
            let own = server.log.contains(position) && self.ledger.holds(entry, None);
            check(next && own && server.durable.holds(position), Rule::Apply, || {
                let (handed, commit, disk) = (server.handed, server.commit, server.durable.log.last());
                format!("applies {position} after {handed}, commit index {commit}, on disk up to {disk}")
            })?;
            server.handed = entry.index;
        }
        Ok(())
    }

    pub(super) fn installs(&mut self, position: Position) -> Checked {
        let server = &mut *self.server;
        let allowed = server.durable.log.base == position && position.index > server.handed;
        check(allowed, Rule::Apply, || {
            format!("installs {position} over {}; the log on disk starts at {}", server.handed, server.durable.log.base)
        })?;
        server.handed = position.index;
        Ok(())
    }

    pub(super) fn answers(&mut self, token: Token, outcome: &Outcome) -> Checked {
        let Some(position) = self.server.proposals.remove(&token) else { return Ok(()) };
        let committed = self.ledger.committed_at(position.index) == Some(position.term);
        let allowed = match outcome {
            Outcome::Done { position: done } => committed && *done == position,
            Outcome::Superseded => !committed,
            Outcome::Expired => true,
            _ => false,
        };
        check(allowed, Rule::Answer, || {
            format!("answers the command at {position} (committed: {committed}) with: {outcome}")
        })
    }
}
