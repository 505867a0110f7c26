//! A replica that knows that its disk has lost a part of what it acknowledged.
//!
//! The paper takes for granted that persisted data stays. If a checksum shows a loss, the replica must not go on as
//! if it had never acknowledged the lost entries: with its vote, a candidate that lacks a committed entry could win
//! (RethinkDB#5289; Alagappan et al. 2018, "Protocol-aware recovery"). So the replica is *suspect*: it neither votes
//! nor stands for election, until a leader has brought its log to a point that is at least as up-to-date (5.4.1) as
//! any the log ever reached. Then it has every committed entry that it acknowledged: the leader has every committed
//! entry, and this log equals the leader's up to that point.
//!
//! A suspect replica's new acknowledgements count, since they are about what is on its disk now. The leader remembers
//! the old ones, and each refusal tells it that they are void.

use crate::effect::{Effects, Write};
use crate::message::AppendOutcome;
use crate::probe::probe;
use crate::raft::Raft;
use crate::role::Role;
use crate::types::{Index, NodeId, Position, Term};

/// What a replica knows about its own loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Suspect {
    /// Where the log may have ended.
    pub(crate) last_possible: Position,
    /// A number for this loss, to tell it from an earlier one.
    pub(crate) loss_id: u64,
}

impl Raft {
    /// Where this replica's log may have ended before a part of it was lost; `None` unless the replica is suspect.
    #[must_use]
    pub fn suspect(&self) -> Option<Position> {
        self.suspect.map(|suspect| suspect.last_possible)
    }

    /// The log is known to equal the leader's up to `index`: this replica is repaired if that is as far as its log
    /// ever reached.
    pub(crate) fn check_repaired(&mut self, index: Index, out: &mut Effects) {
        let Some(Suspect { last_possible, .. }) = self.suspect else { return };
        let verified = Position::new(index, self.log.term_at(index).unwrap_or(Term(0)));
        if verified >= last_possible {
            probe!(Repaired);
            self.suspect = None;
            // This write comes after the entries in the stream: a repaired replica has them on disk.
            self.persistence.write(Write::Repaired, out);
        }
    }

    /// A peer has lost entries that it acknowledged. From now on only its new acknowledgements count, in a new
    /// session, so that no late answer restores the old ones. A later refusal that reports the same loss is treated
    /// like any other.
    pub(crate) fn void_acknowledgements(&mut self, from: NodeId, hint: Position, loss_id: u64) {
        let agreed = self.log.last_at_most(hint.index, hint.term).map_or(Index(0), |position| position.index);
        let Role::Leader(leader) = &mut self.role else { return };
        let session = leader.new_session();
        let Some(progress) = leader.progress.get_mut(&from) else { return };
        probe!(AcknowledgementsVoided);
        progress.session = session;
        progress.voided = Some(loss_id);
        progress.lost_after(agreed);
    }

    /// Turns a refusal into that of a suspect replica, if this replica is suspect.
    pub(crate) fn mark_damaged(&self, outcome: AppendOutcome) -> AppendOutcome {
        match (outcome, self.suspect) {
            (AppendOutcome::Rejected { prev_index, hint }, Some(Suspect { loss_id, .. })) => {
                AppendOutcome::Damaged { prev_index, hint, loss_id }
            }
            (outcome, _) => outcome,
        }
    }
}
