//! The open requests: each must be answered, and only once.

use std::collections::{BTreeMap, BTreeSet};

use crate::effect::{Effect, Effects, Outcome};
use crate::log::Log;
use crate::membership::Group;
use crate::probe::probe;
use crate::types::{Index, NodeId, Position, Term, Time, Token};

/// The requests that have not been answered yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Requests {
    /// Every unanswered token, with the time at which this replica gives it up.
    open: BTreeMap<Token, Option<Time>>,
    deadlines: BTreeSet<(Time, Token)>,
    /// Proposals by the index and term of their entries. They stay here when the leadership is lost, and even when
    /// the entry is truncated here: another replica may still have the entry, lead, and commit it (Figure 8). Only
    /// the entry that is committed at that index decides what became of the proposal.
    proposals: BTreeMap<(Index, Term), Token>,
    /// All proposals of earlier terms have been answered.
    buried_before: Term,
    /// Confirmed reads that wait for the state machine.
    reads: BTreeMap<Index, Vec<Token>>,
    /// The membership changes that this replica started.
    pub(crate) changes: Vec<PendingChange>,
    /// The leadership transfer that this replica started.
    pub(crate) transfer: Option<PendingTransfer>,
}

/// A membership change that awaits its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PendingChange {
    pub(crate) token: Token,
    /// The first entry of the change.
    pub(crate) position: Position,
    /// The group that the change leads to.
    pub(crate) goal: Group,
}

/// A leadership transfer that awaits its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PendingTransfer {
    pub(crate) token: Token,
    pub(crate) to: NodeId,
    pub(crate) deadline: Time,
}

impl Requests {
    /// Opens a request. A token names one request at a time.
    pub(crate) fn open(&mut self, token: Token, deadline: Option<Time>) {
        let earlier = self.open.insert(token, deadline);
        assert!(earlier.is_none(), "the host gives each request a token of its own");
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, token));
        }
    }

    /// Ends a request, unless it has ended before.
    pub(crate) fn answer(&mut self, token: Token, outcome: Outcome, out: &mut Effects) {
        let Some(deadline) = self.open.remove(&token) else { return };
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, token));
        }
        out.push(Effect::Answer { token, outcome });
    }

    /// This replica stops, and will not learn how the open requests end.
    pub(crate) fn give_up_all(&mut self, out: &mut Effects) {
        while let Some((token, _)) = self.open.first_key_value() {
            self.answer(*token, Outcome::Expired, out);
        }
    }

    /// Whether the request still waits for its answer.
    pub(crate) fn is_open(&self, token: Token) -> bool {
        self.open.contains_key(&token)
    }

    /// When this replica gives up the next request.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let transfer = self.transfer.map(|transfer| transfer.deadline);
        self.deadlines.first().map(|(deadline, _)| *deadline).into_iter().chain(transfer).min()
    }

    /// Gives up on the requests whose time has come. Returns whether a transfer of the leadership was one of them.
    pub(crate) fn expire(&mut self, now: Time, out: &mut Effects) -> bool {
        while let Some((deadline, token)) = self.deadlines.first().copied() {
            if deadline > now {
                break;
            }
            probe!(RequestExpired);
            self.answer(token, Outcome::Expired, out);
        }
        let transfer = self.transfer.take_if(|transfer| transfer.deadline <= now);
        if let Some(transfer) = transfer {
            probe!(TransferFailed);
            self.answer(transfer.token, Outcome::Expired, out);
        }
        transfer.is_some()
    }

    /// Notes which entry carries a proposal.
    pub(crate) fn proposed(&mut self, position: Position, token: Token) {
        self.proposals.insert((position.index, position.term), token);
    }

    /// A snapshot replaced the log up to `through`. This replica can no longer tell whether the snapshot contains the
    /// proposals of that part.
    pub(crate) fn covered_by_snapshot(&mut self, through: Index, out: &mut Effects) {
        let later = self.proposals.split_off(&(through.next(), Term(0)));
        for token in std::mem::replace(&mut self.proposals, later).into_values() {
            probe!(ProposalCovered);
            self.answer(token, Outcome::Expired, out);
        }
    }

    /// A read may be served once the state machine has reached `index`.
    pub(crate) fn readable(&mut self, token: Token, index: Index, applied: Index, out: &mut Effects) {
        if applied >= index {
            self.answer(token, Outcome::Readable { index }, out);
        } else {
            probe!(ReadBeforeApply);
            self.reads.entry(index).or_default().push(token);
        }
    }

    /// Answers the proposals whose term is earlier than that of the `committed` entry. Their entries can't be in any
    /// future leader's log: terms never decrease along a log, and every leader has every committed entry (5.4).
    fn bury(&mut self, committed: Index, log: &Log, out: &mut Effects) {
        let term = log.term_at(committed).unwrap_or_default();
        if term > self.buried_before {
            self.buried_before = term;
            let dead: Vec<_> = self.proposals.extract_if(.., |(_, of), _| *of < term).collect();
            dead.into_iter().for_each(|(_, token)| self.answer(token, Outcome::Superseded, out));
        }
    }

    /// The state machine has reached `index`, with the entries of `log`.
    pub(crate) fn applied(&mut self, index: Index, log: &Log, out: &mut Effects) {
        while let Some(entry) = self.proposals.first_entry().filter(|entry| entry.key().0 <= index) {
            let ((index, term), token) = entry.remove_entry();
            let position = Position::new(index, term);
            let outcome = if log.contains(position) { Outcome::Done { position } } else { Outcome::Superseded };
            if outcome == Outcome::Superseded {
                probe!(ProposalSuperseded);
            }
            self.answer(token, outcome, out);
        }
        self.bury(index, log, out);
        while let Some(entry) = self.reads.first_entry().filter(|entry| *entry.key() <= index) {
            let (index, tokens) = entry.remove_entry();
            for token in tokens {
                self.answer(token, Outcome::Readable { index }, out);
            }
        }
    }
}
