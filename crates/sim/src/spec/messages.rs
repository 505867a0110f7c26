//! Checks the messages that a server sends: each must be one that a transition of the model sends in its state.

use bowline_raft::{AppendEntries, AppendOutcome, Body, Message, NodeId, PersistId};

use super::lockstep::Step;
use super::rule::{Checked, Rule, check, named};
use super::server::{Ballot, Role};

impl Step<'_> {
    pub(super) fn said(&mut self, to: NodeId, message: &Message, after: Option<PersistId>) -> Checked {
        let Ballot { term, .. } = self.server.ballot;
        check(message.term == term, Rule::Message, || format!("speaks in {} while it is in {term}", message.term))?;
        match &message.body {
            Body::PreVote { last } => self.asks_for_pre_vote(*last),
            Body::PreVoteReply { granted } => self.answers_pre_vote(to, *granted),
            Body::RequestVote { last, transfer } => self.asks_for_vote(*last, *transfer, after),
            Body::RequestVoteReply { granted: true } => self.votes(to, after),
            Body::RequestVoteReply { granted: false } => Ok(()),
            Body::AppendEntries(append) => self.sends_entries(append),
            Body::AppendEntriesReply(reply) => self.answers_append(to, &reply.outcome, after),
            Body::InstallSnapshot(_) => self.leads(Rule::Message, "sends a snapshot"),
            Body::TimeoutNow => self.leads(Rule::Message, "asks for an election"),
            Body::ReadIndex { .. } | Body::ReadIndexReply { index: None, .. } => Ok(()),
            // Both change nothing, and contain only what is durable.
            Body::Returned { .. } => self.promises(self.server.ballot, after),
            Body::Remembered { leads, .. } => {
                check(leads.is_none_or(|last| last == self.server.log.last()), Rule::Message, || {
                    format!(
                        "says that it leads with a log up to {leads:?}, but its log ends at {}",
                        self.server.log.last()
                    )
                })?;
                self.promises(self.server.ballot, after)
            }
            Body::ReadIndexReply { index: Some(index), .. } => {
                self.leads(Rule::Message, "confirms a read")?;
                self.advance_commit(self.raft.commit_index())?;
                let server = &*self.server;
                let knows = server.log.term_at(server.commit) == Some(term) && *index <= server.commit;
                check(knows, Rule::Message, || {
                    format!("confirms a read at {index} in {term} with the commit index {}", server.commit)
                })
            }
        }
    }

    fn asks_for_pre_vote(&self, last: bowline_raft::Position) -> Checked {
        let own = self.server.log.last();
        check(last == own && self.server.role != Role::Leader, Rule::Message, || {
            format!("asks for pre-votes as {:?} with {last} while its log ends at {own}", self.server.role)
        })
    }

    fn answers_pre_vote(&self, to: NodeId, granted: bool) -> Checked {
        let asked = match self.message {
            Some(Message { term, body: Body::PreVote { last } }) if self.from == Some(to) => Some((*term, *last)),
            _ => None,
        };
        let server = &*self.server;
        let fit = asked.is_some_and(|(term, last)| term == server.ballot.term && last >= server.log.last());
        check(asked.is_some() && (fit || !granted), Rule::Message, || {
            format!("answers {to} granted={granted} to the pre-vote {asked:?}")
        })?;
        check(!(granted && self.promised), Rule::Stickiness, || format!("grants {to} a pre-vote"))
    }

    fn asks_for_vote(&self, last: bowline_raft::Position, transfer: bool, after: Option<PersistId>) -> Checked {
        let (server, own) = (&*self.server, self.server.log.last());
        let stands = server.role == Role::Candidate && last == own && transfer == server.transfer;
        check(stands, Rule::Message, || {
            format!("asks for votes as {:?} with {last} (transfer: {transfer}); its log ends at {own}", server.role)
        })?;
        self.promises(server.ballot, after)
    }

    /// The term and vote that a message promises must be durable when it leaves.
    fn promises(&self, ballot: Ballot, after: Option<PersistId>) -> Checked {
        let durable = self.server.ballot_after(after);
        check(durable == ballot, Rule::Promise, || format!("promises {ballot:?} when only {durable:?} is durable"))
    }

    fn votes(&self, to: NodeId, after: Option<PersistId>) -> Checked {
        let ballot = self.server.ballot;
        check(ballot.voted_for == Some(to) && self.from == Some(to), Rule::GrantVote, || {
            format!("grants {to} its vote in {}, which it gave to {}", ballot.term, named(ballot.voted_for))
        })?;
        self.may_grant()?;
        self.promises(ballot, after)
    }

    fn sends_entries(&mut self, append: &AppendEntries) -> Checked {
        self.leads(Rule::AppendEntries, "sends entries")?;
        let mut before = append.prev;
        let known = self.server.log.contains(before);
        check(known, Rule::AppendEntries, || format!("sends entries after {before}, which its log doesn't hold"))?;
        for entry in &append.entries {
            let position = entry.position();
            let own = entry.index == before.index.next() && self.server.log.contains(position);
            check(own && self.ledger.holds(entry, Some(before.term)), Rule::AppendEntries, || {
                format!("sends after {before} an entry {position} that its log doesn't hold there")
            })?;
            before = position;
        }
        // A commit of this step shows here first.
        if append.commit_index > self.server.commit {
            self.advance_commit(append.commit_index)?;
        }
        Ok(())
    }

    fn answers_append(&mut self, to: NodeId, outcome: &AppendOutcome, after: Option<PersistId>) -> Checked {
        let asked = matches!(
            self.message.map(|message| &message.body),
            Some(Body::AppendEntries(_) | Body::InstallSnapshot(_))
        );
        check(asked && self.from == Some(to), Rule::Acknowledge, || {
            format!("answers {to}, which has sent no entries")
        })?;
        if self.message.is_some_and(|message| message.term == self.server.ballot.term) {
            self.follow()?;
            let (heard, now) = (self.raft.leader_contact(), self.server.now);
            check(heard >= Some(now), Rule::Stickiness, || {
                format!("answers its leader at {now:?}, but says that it last heard it at {heard:?}")
            })?;
        }
        match *outcome {
            AppendOutcome::Accepted { match_index } => self.acknowledges(match_index, after),
            AppendOutcome::Rejected { hint, .. } | AppendOutcome::Damaged { hint, .. } => {
                let wrong = self.append().filter(|(append, _)| self.server.matches_at(append.prev));
                check(wrong.is_none() && self.server.log.contains(hint), Rule::Acknowledge, || {
                    format!("refuses entries after a place that matches, or hints at {hint} which it doesn't hold")
                })
            }
        }
    }

    fn acknowledges(&mut self, match_index: bowline_raft::Index, after: Option<PersistId>) -> Checked {
        let shown = self.append().map(|(_, end)| end).or(self.snapshot().map(|header| header.position));
        if self.snapshot().is_some() {
            self.advance_commit(self.raft.commit_index())?;
        }
        let server = &*self.server;
        let matched = shown.filter(|end| server.matches_at(*end));
        // The answer to a snapshot older than the commit index is the commit index.
        let limit = match (matched, self.snapshot()) {
            (Some(end), Some(_)) => Some(end.index.max(server.commit)),
            (Some(end), None) => Some(end.index),
            (None, _) => None,
        };
        check(limit.is_some_and(|limit| match_index <= limit), Rule::Acknowledge, || {
            format!("acknowledges {match_index}, but {matched:?} is what matches")
        })?;
        let durable = server.log_is_durable_after(after, match_index) && server.ballot_after(after) == server.ballot;
        check(durable, Rule::Promise, || {
            format!("acknowledges {match_index}, but its disk ends at {}", server.durable.log.last())
        })
    }
}
