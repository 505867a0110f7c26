//! A replica whose disk has lost a part of what it acknowledged, and knows it.
//!
//! The paper takes for granted that what was persisted stays. Where a checksum says otherwise, the
//! replica must not go on as if it had never acknowledged the lost entries: with its vote, a
//! candidate without a committed entry could win (RethinkDB#5289; Alagappan et al. 2018, "Protocol-aware
//! recovery"). So it is *suspect*: it neither votes nor stands, until a leader has brought its log
//! to where it is at least as up-to-date (5.4.1) as it ever was. Then nothing that it acknowledged
//! and that was committed is missing: a leader has every committed entry, and a log that equals the
//! leader's up to an entry that is not before any of its own old ones has them too.
//!
//! Its acknowledgements count all the while, since they are about what it has on disk now. The
//! leader, which remembers the old ones, is told with each refusal that they are void.

use crate::effect::{Effects, Write};
use crate::message::AppendOutcome;
use crate::probe::probe;
use crate::raft::Raft;
use crate::role::Role;
use crate::types::{Index, NodeId, Position, Term};

/// What a replica knows of its own loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Suspect {
    /// Where the log may have ended.
    pub(crate) last_possible: Position,
    /// Tells this loss from an earlier one.
    pub(crate) loss_id: u64,
}

impl Raft {
    /// Where this replica's log may have ended before a part of it was lost; `None` if nothing that
    /// it acknowledged is missing.
    #[must_use]
    pub fn suspect(&self) -> Option<Position> {
        self.suspect.map(|suspect| suspect.last_possible)
    }

    /// The log is known to equal the leader's up to `index`: that may be as far as it ever reached.
    pub(crate) fn check_repaired(&mut self, index: Index, out: &mut Effects) {
        let Some(Suspect { last_possible, .. }) = self.suspect else { return };
        let verified = Position::new(index, self.log.term_at(index).unwrap_or(Term(0)));
        if verified >= last_possible {
            probe!(Repaired);
            self.suspect = None;
            // After the entries in the stream: whoever is repaired has them on disk.
            self.persistence.write(Write::Repaired, out);
        }
    }

    /// A peer has lost entries that it acknowledged: from now on only what it acknowledges anew
    /// counts, in a session of its own, so that no late answer brings the old ones back. In the
    /// session that begins with the first report of a loss, a refusal is one like any other.
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

    /// What a suspect replica says where another one refuses.
    pub(crate) fn mark_damaged(&self, outcome: AppendOutcome) -> AppendOutcome {
        match (outcome, self.suspect) {
            (AppendOutcome::Rejected { prev_index, hint }, Some(Suspect { loss_id, .. })) => {
                AppendOutcome::Damaged { prev_index, hint, loss_id }
            }
            (outcome, _) => outcome,
        }
    }
}
