//! Checks Log Matching (I3) by induction: index and term identify an entry, and every replica that writes it must write
//! the same payload after the same predecessor.

use std::collections::BTreeMap;

use bowline_raft::{Entry, Payload, Term};

use crate::cluster::oracle::{Judged, Rule, digest, mix};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LinkTo {
    term: Term,
    previous: Term,
    payload: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Links {
    /// By index: the first entry that was seen there.
    first: Vec<Option<LinkTo>>,
    /// Entries of other terms at the same index.
    others: BTreeMap<(u64, Term), LinkTo>,
}

impl Links {
    /// A replica appends `entry` after an entry of the term `previous`.
    pub(crate) fn appended(&mut self, entry: &Entry, previous: Term) -> Judged {
        let payload = match &entry.payload {
            Payload::Blank => 1,
            Payload::Command(command) => digest(command),
            Payload::Membership(membership) => mix(2, digest(membership.to_string().as_bytes())),
        };
        let link = LinkTo { term: entry.term, previous, payload };
        let at = usize::try_from(entry.index.0).expect("an index fits");
        if self.first.len() <= at {
            self.first.resize(at + 1, None);
        }
        let known = match &mut self.first[at] {
            slot @ None => *slot.insert(link),
            Some(first) if first.term == entry.term => *first,
            Some(_) => *self.others.entry((entry.index.0, entry.term)).or_insert(link),
        };
        if known == link {
            return Ok(());
        }
        let which = if known.previous == previous { "another payload" } else { "another predecessor" };
        Err((Rule::LogMatching, format!("entry {} was written before with {which}", entry.position())))
    }
}
