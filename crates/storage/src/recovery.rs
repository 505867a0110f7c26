//! Reading the log at a start: which segments belong to it, and the state that they add up to.

use std::collections::VecDeque;
use std::ops::Range;

use bowline_raft::{Entry, HardState, Index, Position, SnapshotHeader, Term};

use crate::batch::{self, Place};
use crate::disk::{Disk, DiskError, File, SECTOR, read_all};
use crate::hard_state::{self, FoundCopies};
use crate::identity::Binding;
use crate::record::{Checkpoint, Record};
use crate::scan::Reading;
use crate::segments::{self, Listing, segment_path};
use crate::state::{State, Suspicion};
use crate::store::OpenError;

/// No segment is larger; a larger file is refused.
pub(crate) const MAX_SEGMENT_BYTES: u64 = 2 << 30;
/// The checkpoints are looked for in this many sectors at the beginning of a segment: one is smaller than half of them.
const HEAD_SECTORS: u32 = 32;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The data was never acknowledged, or the sectors were unused.
    Harmless,
    /// Another copy exists; nothing is lost.
    Repaired,
    /// Acknowledged data may be lost.
    Suspect,
}

/// Something unusual that was found at a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file in the folder.
    pub file: String,
    /// The sectors of 512 bytes in it; empty if they don't matter.
    pub sectors: Range<u32>,
    /// How bad it is.
    pub severity: Severity,
    /// A description.
    pub what: String,
}

/// Describes a torn write.
pub(crate) const TORN: &str = "a crash tore the last write, which was never acknowledged";

impl Finding {
    /// Whether it is a write that a crash tore.
    #[must_use]
    pub fn is_torn_write(&self) -> bool {
        self.what == TORN
    }

    pub(crate) fn new(file: &str, sectors: Range<u32>, severity: Severity, what: &str) -> Finding {
        Finding { file: file.to_owned(), sectors, severity, what: what.to_owned() }
    }
}

/// The damage at the end of the readable prefix; fields as in [`Suspicion`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lost {
    pub(crate) valid_up_to: Position,
    pub(crate) last_possible: Option<Index>,
}

/// What was read from the log, and where the log continues.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) state: State,
    pub(crate) entries: VecDeque<Entry>,
    pub(crate) lost: Option<Lost>,
    /// The segment and sector at which the log continues.
    pub(crate) cut: (u64, u32),
    /// Sectors of a torn batch, to be overwritten.
    pub(crate) torn: Option<Range<u32>>,
    /// First sector and length of the last batch, which may never have been synced.
    pub(crate) last_batch: Option<(u32, u32)>,
    /// Only the first of the two checkpoints is there.
    pub(crate) lacks_second_checkpoint: bool,
    /// Segments before the last one, each with the log's last index at its end.
    pub(crate) earlier: Vec<(u64, Index)>,
    /// Segments that don't belong to the log, or no longer.
    pub(crate) dead: Vec<u64>,
    pub(crate) listing: Listing,
    pub(crate) copies: FoundCopies,
    /// There were at least this many hard states.
    pub(crate) hard_needed: u64,
    /// The damaged sectors may have held a later one.
    pub(crate) hard_may_be_later: bool,
    /// The log's own latest hard state is older than the copy's.
    pub(crate) log_lacks_hard_state: bool,
    /// The copy is damaged or older than the log.
    pub(crate) copy_is_stale: bool,
    /// The next segment must not refer to the ones before it.
    pub(crate) begins_anew: bool,
}

impl Replay {
    /// The suspicion that the log continues with.
    pub(crate) fn suspicion(&self) -> Option<Suspicion> {
        let lost = self.lost.map(|lost| Suspicion { valid_up_to: lost.valid_up_to, last_possible: lost.last_possible });
        match (self.state.suspicion, lost) {
            (Some(old), Some(new)) => Some(old.and(new)),
            (old, new) => old.or(new),
        }
    }

    /// The term of an entry that was read.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        let first = self.entries.front()?.index;
        let offset = usize::try_from(index.0.checked_sub(first.0)?).ok()?;
        self.entries.get(offset).map(|entry| entry.term)
    }

    /// Gives up the log, because the state under it is lost.
    pub(crate) fn lose_everything(&mut self) {
        let last_index = self.state.last().index;
        self.state.base = None;
        self.lose_from(Position::ORIGIN, last_index);
    }

    /// Whether a later hard state than this version may have been acknowledged. If no slot is damaged, the
    /// copy has the latest, as it is written first. If the log isn't damaged, the log has it.
    fn hard_state_is_lost(&self, version: u64) -> bool {
        version < self.hard_needed || (self.copies.damaged && self.hard_may_be_later)
    }

    /// Starts over from a whole snapshot that reaches beyond the readable prefix.
    pub(crate) fn start_from(&mut self, header: &SnapshotHeader) {
        self.entries.clear();
        self.state.cut_at(header.position);
        self.state.base = Some(header.clone());
        self.begins_anew = true;
        let is_beyond = |last: Option<Index>| last.is_none_or(|index| index > header.position.index);
        self.lost = self.lost.filter(|lost| is_beyond(lost.last_possible));
        // The record that ended an earlier suspicion may be unreadable.
        self.state.suspicion = self.state.suspicion.filter(|suspicion| is_beyond(suspicion.last_possible));
        if let Some(lost) = &mut self.lost {
            lost.valid_up_to = header.position;
        }
    }

    /// Notes that the lost part reached at least this index.
    pub(crate) fn has_reached(&mut self, index: Index) {
        if let Some(lost) = &mut self.lost {
            lost.last_possible = lost.last_possible.map(|last| last.max(index));
        }
    }

    fn lose_from(&mut self, valid_up_to: Position, last_index: Index) {
        let last_possible = match self.lost {
            Some(lost) => lost.last_possible.map(|earlier| earlier.max(last_index)),
            None => Some(last_index),
        };
        self.lost = Some(Lost { valid_up_to, last_possible });
        self.entries.clear();
        self.state.cut_at(valid_up_to);
        self.begins_anew = true;
    }
}

/// The beginning of a segment.
struct Head {
    sequence: u64,
    checkpoint: Option<Checkpoint>,
}

/// A segment of the log, up to the sector at which the next one takes over.
struct Link {
    sequence: u64,
    end: Option<u32>,
}

/// Reads the log and the copy of the hard state.
pub(crate) fn read_log<D: Disk>(disk: &D, binding: Binding, findings: &mut Vec<Finding>) -> Result<Replay, OpenError> {
    let listing = segments::list(disk)?;
    let copies = hard_state::read(disk, binding)?;
    let mut heads = Vec::new();
    for sequence in &listing.segments {
        heads.push(Head { sequence: *sequence, checkpoint: read_head(disk, binding, *sequence)? });
    }
    let lost = || OpenError::LogLost { place: disk.place() };
    let top = heads.iter().rposition(|head| head.checkpoint.is_some()).ok_or_else(lost)?;
    let chain = chain_up_to(&heads, top);
    let attempt = |from: usize| -> Result<Option<(Replay, Vec<Finding>)>, DiskError> {
        let mut findings = Vec::new();
        let Some(checkpoint) = heads.iter().find(|head| head.sequence == chain[from].sequence) else { return Ok(None) };
        let Some(checkpoint) = &checkpoint.checkpoint else { return Ok(None) };
        let mut reading = Reading::new(binding, State::at(checkpoint), copies, &mut findings);
        for (at, link) in chain.iter().enumerate().skip(from) {
            let bytes = read_segment(disk, link.sequence)?;
            reading.segment(link.sequence, &bytes, link.end, at + 1 == chain.len());
        }
        for head in &heads[top + 1..] {
            reading.begun(head.sequence, &read_segment(disk, head.sequence)?);
        }
        let mut replay = reading.finish(listing.clone());
        check_base(&mut replay, &mut findings);
        Ok(Some((replay, findings)))
    };
    let (mut replay, mut found) = attempt(0)?.ok_or_else(lost)?;
    if replay.lost.is_some() {
        // Damage in a segment that a snapshot covers loses nothing: the later segments suffice.
        for from in 1..chain.len() {
            if let Some((later, at_end)) = attempt(from)?
                && later.lost.is_none()
            {
                replay = later;
                found.retain(|finding| !at_end.contains(finding));
                found.iter_mut().for_each(|finding| finding.severity = finding.severity.min(Severity::Repaired));
                found.extend(at_end);
                break;
            }
        }
    }
    findings.extend(found);
    let in_use: Vec<u64> = replay.earlier.iter().map(|(sequence, _)| *sequence).chain([replay.cut.0]).collect();
    replay.dead = heads.iter().map(|head| head.sequence).filter(|sequence| !in_use.contains(sequence)).collect();
    settle_hard_state(disk, &mut replay, findings)?;
    Ok(replay)
}

fn read_segment<D: Disk>(disk: &D, sequence: u64) -> Result<Vec<u8>, DiskError> {
    let path = segment_path(sequence);
    read_all(&disk.open(&path)?, &path, MAX_SEGMENT_BYTES)
}

/// The checkpoint of a segment, from either of its two copies.
fn read_head<D: Disk>(disk: &D, binding: Binding, sequence: u64) -> Result<Option<Checkpoint>, DiskError> {
    let file = disk.open(&segment_path(sequence))?;
    let size = file.size()?.min(u64::from(HEAD_SECTORS) * SECTOR as u64);
    let mut bytes = vec![0; usize::try_from(size).expect("a few sectors")];
    file.read_at(0, &mut bytes)?;
    let starts = (0..HEAD_SECTORS / 2).filter_map(|start| {
        let batch = batch::decode(Place { binding, segment: sequence, start }, &bytes)?;
        match batch.records.into_iter().next() {
            Some(Record::Checkpoint(checkpoint)) => Some(*checkpoint),
            _ => None,
        }
    });
    Ok({ starts }.next())
}

/// The segments up to the top one, oldest first: each checkpoint names the segment before it. If a segment has
/// no readable checkpoint, the file with the next lower number counts as the one before it.
fn chain_up_to(heads: &[Head], top: usize) -> Vec<Link> {
    let mut chain = vec![Link { sequence: heads[top].sequence, end: None }];
    let mut at = top;
    loop {
        let (before, end) = match heads[at].checkpoint.as_ref().map(|checkpoint| checkpoint.previous) {
            Some(None) => break,
            Some(Some((sequence, end))) => (heads[..at].iter().position(|head| head.sequence == sequence), Some(end)),
            None => (at.checked_sub(1), None),
        };
        let Some(before) = before else { break };
        chain.push(Link { sequence: heads[before].sequence, end });
        at = before;
    }
    // The first segment needs a checkpoint, as the state starts from it.
    while let Some(link) = chain.last()
        && chain.len() > 1
        && heads.iter().any(|head| head.sequence == link.sequence && head.checkpoint.is_none())
    {
        chain.pop();
    }
    chain.reverse();
    chain
}

/// Checks that the entries begin where the snapshot under them ends.
fn check_base(replay: &mut Replay, findings: &mut Vec<Finding>) {
    let base = replay.state.base.as_ref().map_or(Position::ORIGIN, |base| base.position);
    let last = replay.state.last().index;
    let first_known = replay.entries.front().map_or(last.next(), |entry| entry.index);
    if first_known > base.index.next() {
        let what = format!("the entries from {} to {} are missing", base.index.next(), first_known.previous());
        findings.push(Finding::new(segments::LOG_DIR, 0..0, Severity::Suspect, &what));
        replay.lose_from(base, last);
    }
}

/// Takes the latest term and vote from the log and the copy.
fn settle_hard_state<D: Disk>(disk: &D, replay: &mut Replay, findings: &mut Vec<Finding>) -> Result<(), OpenError> {
    let in_log = (replay.state.hard_version, replay.state.hard_state);
    if replay.copies.damaged {
        let what = "a copy of term and vote is unreadable";
        findings.push(Finding::new(hard_state::HARD_STATE_FILE, 0..0, Severity::Repaired, what));
    }
    let (version, hard_state): (u64, HardState) = match replay.copies.newest {
        Some(copy) if copy.version > in_log.0 => (copy.version, copy.hard_state),
        _ => in_log,
    };
    if replay.hard_state_is_lost(version) {
        return Err(OpenError::HardStateLost { place: disk.place() });
    }
    replay.log_lacks_hard_state = version > in_log.0;
    replay.copy_is_stale = replay.copies.damaged || replay.copies.newest.is_none_or(|copy| copy.version < version);
    replay.state.hard_version = version.max(replay.hard_needed);
    replay.state.hard_state = hard_state;
    Ok(())
}
