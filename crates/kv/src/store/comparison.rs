//! The comparison of the members' states.
//!
//! All members apply the same commands in the same order, so their states must be equal. A bug, bad memory or a damaged
//! disk can make one differ. Two comparisons notice that:
//!
//! - Each member keeps a checksum of the effects of all commands that it has applied: the records, revisions and leases
//!   that they wrote. At times the leader writes a *mark*. Each member then reports the checksum that it had at the mark.
//! - Each member reports the [checksums that are kept of compactions](super::kept_hashes). They count the history as it
//!   is stored, so they also show damage to old records.
//!
//! Marks and reports are commands like all others. So the reports are part of the state, and each member comes to the
//! same verdict: a member whose report differs from that of a majority of the members gets the alarm CORRUPT. If no
//! majority agrees, nobody knows who is right, and each member that has reported gets the alarm.
//!
//! The first mark begins the checksum of effects, so that members of all versions begin it at the same command.

use std::collections::BTreeMap;

use bowline_node::raft::Index;
use bytes::Bytes;
use prost::Message;

use super::auth::AuthBook;
use super::engine::{Engine, Revision};
use super::leases::LeaseChange;
use super::members::{MAX_MEMBERS, Members};
use super::read::Failure;
use super::record::Record;
use super::types::{AlarmKind, CompareRequest, CompareResponse, CompareStep, MemberChecksum};
use super::{KvError, Store};

/// What a store knows about the states of the members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// The checksum of the effects of all commands since the first mark.
    effects: u32,
    /// The same at the latest mark.
    marked: u32,
    /// The latest mark, by its index, at which all members had the same checksum; 0 if there is none.
    agreed: i64,
    /// The reports for the latest mark, which is at this index.
    mark: Board,
    /// The reports for a compaction, at its revision.
    compaction: Board,
}

/// The reports of the members for one point. Points are above 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Board {
    at: i64,
    reports: BTreeMap<u64, u32>,
}

/// Its form in a note or a snapshot. Field numbers never change.
#[derive(Clone, PartialEq, prost::Message)]
struct Note {
    #[prost(fixed32, tag = "1")]
    effects: u32,
    #[prost(fixed32, tag = "2")]
    marked: u32,
    #[prost(int64, tag = "3")]
    agreed: i64,
    #[prost(message, required, tag = "4")]
    mark: BoardNote,
    #[prost(message, required, tag = "5")]
    compaction: BoardNote,
}

#[derive(Clone, PartialEq, prost::Message)]
struct BoardNote {
    #[prost(int64, tag = "1")]
    at: i64,
    #[prost(message, repeated, tag = "2")]
    reports: Vec<MemberChecksum>,
}

impl Comparison {
    /// Whether there never was a mark.
    pub(crate) fn is_empty(&self) -> bool {
        self.mark.at == 0
    }

    /// Adds the users and roles that a command has left.
    pub(crate) fn take_auth(&mut self, auth: &AuthBook) {
        if !self.is_empty() {
            self.effects = crc32c::crc32c_append(self.effects, &auth.encode());
        }
    }

    /// Adds the effects of a command, which was refused or not.
    pub(crate) fn take(
        &mut self,
        index: Index,
        (revision, compacted): (i64, i64),
        refused: bool,
        records: &[(Revision, Record)],
        leases: &[LeaseChange],
    ) {
        if self.is_empty() {
            return;
        }
        let mut sum = crc32c::crc32c_append(self.effects, &index.0.to_le_bytes());
        sum = crc32c::crc32c_append(sum, &revision.to_le_bytes());
        sum = crc32c::crc32c_append(sum, &compacted.to_le_bytes());
        sum = crc32c::crc32c_append(sum, &[u8::from(refused)]);
        for (at, record) in records {
            sum = crc32c::crc32c_append(sum, &at.sub.to_le_bytes());
            sum = crc32c::crc32c_append(sum, record.stored());
        }
        for change in leases {
            let (id, ttl, granted_at) = match change {
                LeaseChange::Granted(lease) => (lease.id, lease.ttl, lease.granted_at.0),
                LeaseChange::Gone(id) => (*id, 0, 0),
            };
            sum = crc32c::crc32c_append(sum, &id.to_le_bytes());
            sum = crc32c::crc32c_append(sum, &ttl.to_le_bytes());
            sum = crc32c::crc32c_append(sum, &granted_at.to_le_bytes());
        }
        self.effects = sum;
    }

    /// Forgets the reports of a member that is no longer one.
    pub(crate) fn forget(&mut self, member: u64) {
        self.mark.reports.remove(&member);
        self.compaction.reports.remove(&member);
    }

    pub(crate) fn encode(&self) -> Bytes {
        let note = Note {
            effects: self.effects,
            marked: self.marked,
            agreed: self.agreed,
            mark: self.mark.note(),
            compaction: self.compaction.note(),
        };
        note.encode_to_vec().into()
    }

    /// Reads what [`Comparison::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are no comparison.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Comparison, String> {
        let note = Note::decode(bytes).map_err(|error| format!("its comparison of the members: {error}"))?;
        let (mark, compaction) = (Board::read(note.mark)?, Board::read(note.compaction)?);
        Ok(Comparison { effects: note.effects, marked: note.marked, agreed: note.agreed, mark, compaction })
    }
}

impl Board {
    fn at(at: i64) -> Board {
        Board { at, reports: BTreeMap::new() }
    }

    fn is_complete(&self, members: &Members) -> bool {
        members.iter().all(|member| self.reports.contains_key(&member.id))
    }

    /// Whether all members have reported the same.
    fn agrees(&self, members: &Members) -> bool {
        let mut checksums = self.reports.values();
        let first = checksums.next();
        self.is_complete(members) && checksums.all(|checksum| Some(checksum) == first)
    }

    /// The members whose states are wrong or may be wrong. `last`: whether no more reports come.
    fn suspects(&self, members: &Members, last: bool) -> Vec<u64> {
        let mut counts = BTreeMap::<u32, usize>::new();
        self.reports.values().for_each(|checksum| *counts.entry(*checksum).or_default() += 1);
        if counts.len() < 2 {
            return Vec::new();
        }
        let majority = members.iter().count() / 2 + 1;
        let right = counts.iter().find(|(_, count)| **count >= majority).map(|(checksum, _)| *checksum);
        if right.is_none() && !last && !self.is_complete(members) {
            return Vec::new();
        }
        let suspects = self.reports.iter().filter(|(_, checksum)| Some(**checksum) != right);
        suspects.map(|(member, _)| *member).collect()
    }

    fn note(&self) -> BoardNote {
        let report = |(member, checksum): (&u64, &u32)| MemberChecksum { member: *member, at: 0, checksum: *checksum };
        BoardNote { at: self.at, reports: self.reports.iter().map(report).collect() }
    }

    fn read(note: BoardNote) -> Result<Board, String> {
        let count = note.reports.len();
        let reports: BTreeMap<u64, u32> = note.reports.iter().map(|report| (report.member, report.checksum)).collect();
        let sound = count <= MAX_MEMBERS && reports.len() == count && note.at >= 0;
        if sound { Ok(Board { at: note.at, reports }) } else { Err("its reports of members break a rule".to_owned()) }
    }
}

/// The reports of one member. A report that was answered is not repeated: if the answer did not count it, there is a later
/// mark, of which this member has not heard yet, or it is a member no longer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reports {
    answered: Option<CompareStep>,
}

impl Reports {
    /// What it reports next, if its own state says that it owes this report: see [`Store::report_of`].
    #[must_use]
    pub fn next(&self, owed: Option<CompareStep>) -> Option<CompareStep> {
        owed.filter(|owed| Some(*owed) != self.answered)
    }

    /// Notes that a report was answered, with any answer.
    pub fn answered(&mut self, report: CompareStep) {
        self.answered = Some(report);
    }
}

impl<E: Engine> Store<E> {
    /// Whether a mark is due: something was applied since the last one.
    #[must_use]
    pub fn is_mark_due(&self) -> bool {
        let comparison = &self.meta.comparison;
        comparison.is_empty() || comparison.effects != comparison.marked
    }

    /// The latest mark: the index of its entry; 0 if there is none.
    #[must_use]
    pub fn marked_at(&self) -> Index {
        Index(self.meta.comparison.mark.at.unsigned_abs())
    }

    /// The latest mark at which all members had the same checksum: the index of its entry; 0 if there is none.
    #[must_use]
    pub fn agreed_at(&self) -> Index {
        Index(self.meta.comparison.agreed.unsigned_abs())
    }

    /// The report that a member of this state has still to write, if there is one.
    #[must_use]
    pub fn report_of(&self, member: u64) -> Option<CompareStep> {
        let Comparison { marked, mark, compaction, .. } = &self.meta.comparison;
        self.meta.members.get(member).filter(|_| mark.at > 0)?;
        if !mark.reports.contains_key(&member) {
            return Some(CompareStep::Effects(MemberChecksum { member, at: mark.at, checksum: *marked }));
        }
        let hashes = &self.meta.hashes;
        let kept = match self.compaction_is_open() {
            true => hashes.get(compaction.at).filter(|_| !compaction.reports.contains_key(&member)),
            false => hashes.iter().filter(|kept| kept.hash.is_some() && kept.at > compaction.at).last(),
        }?;
        Some(CompareStep::Compaction(MemberChecksum { member, at: kept.at, checksum: kept.hash? }))
    }

    /// Whether members have still to report the compaction that is compared.
    fn compaction_is_open(&self) -> bool {
        let board = &self.meta.comparison.compaction;
        self.meta.hashes.get(board.at).is_some() && !board.is_complete(&self.meta.members)
    }

    pub(crate) fn compare(&mut self, index: Index, request: &CompareRequest) -> Result<CompareResponse, Failure> {
        match request.step.as_ref().ok_or(KvError::Unreadable)? {
            CompareStep::Mark(()) => {
                self.judge(true);
                let at = i64::try_from(index.0).map_err(|_| KvError::Unreadable)?;
                let comparison = &mut self.meta.comparison;
                (comparison.mark, comparison.marked) = (Board::at(at), comparison.effects);
            }
            CompareStep::Effects(report) => {
                self.meta.members.get(report.member).ok_or(KvError::MemberNotFound)?;
                let board = &mut self.meta.comparison.mark;
                if report.at == board.at {
                    board.reports.insert(report.member, report.checksum);
                    if board.agrees(&self.meta.members) {
                        self.meta.comparison.agreed = report.at;
                    }
                    self.judge(false);
                }
            }
            CompareStep::Compaction(report) => {
                self.meta.members.get(report.member).ok_or(KvError::MemberNotFound)?;
                self.compare_compactions(report);
            }
        }
        Ok(CompareResponse { revision: self.meta.revision })
    }

    fn compare_compactions(&mut self, report: &MemberChecksum) {
        let is_next = report.at > self.meta.comparison.compaction.at && self.meta.hashes.get(report.at).is_some();
        if is_next && !self.compaction_is_open() {
            let suspects = self.meta.comparison.compaction.suspects(&self.meta.members, true);
            self.suspect(&suspects);
            self.meta.comparison.compaction = Board::at(report.at);
        }
        let board = &mut self.meta.comparison.compaction;
        if report.at == board.at {
            board.reports.insert(report.member, report.checksum);
            let suspects = board.suspects(&self.meta.members, false);
            self.suspect(&suspects);
        }
    }

    fn judge(&mut self, last: bool) {
        let suspects = self.meta.comparison.mark.suspects(&self.meta.members, last);
        self.suspect(&suspects);
    }

    fn suspect(&mut self, members: &[u64]) {
        members.iter().for_each(|member| self.meta.alarms.raise(*member, AlarmKind::Corrupt));
    }
}
