//! The lines of a script's output: one for each event, for people to read.

use bowline_raft::{Entry, Membership, Payload, Raft, RoleExplanation, Write};

/// What of a replica is worth a line when it changes.
#[derive(Clone, PartialEq)]
pub(crate) struct Status {
    pub(crate) role: String,
    pub(crate) commit: u64,
    pub(crate) membership: Membership,
}

impl Status {
    pub(crate) fn of(raft: &Raft) -> Status {
        let role = match raft.explain().role {
            RoleExplanation::Leading { .. } => "leader".to_owned(),
            RoleExplanation::Standing { pre_vote: true, .. } => "pre-candidate".to_owned(),
            RoleExplanation::Standing { pre_vote: false, .. } => "candidate".to_owned(),
            _ => raft.leader().map_or("follower".to_owned(), |leader| format!("follower({leader})")),
        };
        let role = format!("{}@{} {role}", raft.id(), raft.term().0);
        Status { role, commit: raft.commit_index().0, membership: raft.membership().clone() }
    }

    /// The lines for what changed since `before`.
    pub(crate) fn changes_since(&self, before: &Status, raft: &Raft) -> Vec<String> {
        let mut lines = Vec::new();
        if self.role != before.role {
            lines.push(format!("{} ⇒ {}", before.role, self.role));
        }
        if self.membership != before.membership {
            lines.push(format!("{} members {} ⇒ {}", raft.id(), before.membership, self.membership));
        }
        if self.commit != before.commit {
            lines.push(format!("{} commit {} ⇒ {}", raft.id(), before.commit, self.commit));
        }
        lines
    }
}

/// An entry in a word.
pub(crate) fn entry(entry: &Entry) -> String {
    format!("{} {}", entry.position(), payload(&entry.payload))
}

pub(crate) fn payload(payload: &Payload) -> String {
    match payload {
        Payload::Blank => "blank".to_owned(),
        Payload::Command(command) => String::from_utf8_lossy(command).into_owned(),
        Payload::Membership(membership) => membership.to_string(),
    }
}

pub(crate) fn entries(list: &[Entry]) -> String {
    match list {
        [first, _, _, _, .., last] => format!("{} .. {} ({} entries)", entry(first), entry(last), list.len()),
        list => list.iter().map(entry).collect::<Vec<_>>().join(", "),
    }
}

pub(crate) fn write(write: &Write) -> String {
    match write {
        Write::HardState(state) => {
            let vote = state.voted_for.map_or("none".to_owned(), |id| id.to_string());
            format!("term={} vote={vote}", state.term.0)
        }
        Write::Truncate { from } => format!("truncate from {from}"),
        Write::Append(list) => format!("append {}", entries(list)),
        Write::Suspect { last_possible } => format!("suspect up to {last_possible}"),
        Write::Repaired => "repaired".to_owned(),
        Write::Snapshot(snapshot) => format!("snapshot {} {}", snapshot.position, snapshot.membership),
    }
}
