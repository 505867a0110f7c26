//! Reading segments sector by sector, to tell whole batches, torn writes and rot apart.
//!
//! The rules are in the crate's documentation.

use std::collections::VecDeque;
use std::ops::Range;

use bowline_raft::{Entry, HardState, Index, Position, Term};

use crate::batch::{self, Batch, Place};
use crate::disk::SECTOR;
use crate::hard_state::FoundCopies;
use crate::identity::Binding;
use crate::record::{ENTRY_BYTES, Record};
use crate::recovery::{Finding, Lost, Replay, Severity, TORN};
use crate::sector::{PAYLOAD, Sector, SectorHeader};
use crate::segments::{Listing, segment_path};
use crate::state::State;

/// The state of reading the segments, in their order.
pub(crate) struct Reading<'a> {
    binding: Binding,
    state: State,
    entries: VecDeque<Entry>,
    copies: FoundCopies,
    findings: &'a mut Vec<Finding>,
    lost: Option<Lost>,
    gap: Option<Gap>,
    cut: (u64, u32),
    torn: Option<Range<u32>>,
    last_batch: Option<(u64, u32, u32)>,
    /// Segment, and number of sectors of its first checkpoint.
    checkpoint: Option<(u64, u32)>,
    earlier: Vec<(u64, Index)>,
    /// The latest hard state that was read, with its version.
    hard: (u64, HardState),
    /// There were at least this many hard states.
    hard_needed: u64,
    /// The damaged sectors may have held a later one.
    hard_may_be_later: bool,
}

/// Unreadable sectors, until a whole batch after them shows whether entries are missing.
struct Gap {
    at: (u64, u32),
    findings: Vec<usize>,
    last_index: Index,
}

/// The sectors after the last whole batch of a log.
#[derive(Default)]
struct Beyond {
    current: Vec<(u32, SectorHeader)>,
    damaged: Vec<u32>,
    rotten: Vec<u32>,
}

impl Beyond {
    fn of(place: Place, from: u32, bytes: &[u8]) -> Beyond {
        let mut beyond = Beyond::default();
        for at in from..sectors_of(bytes) {
            match batch::classify_at(place, at, bytes) {
                Sector::Current(header) => beyond.current.push((at, header)),
                Sector::Unwritten => {}
                Sector::UnwrittenRotten => beyond.rotten.push(at),
                Sector::Damaged => beyond.damaged.push(at),
            }
        }
        beyond
    }

    /// The sectors of the torn batch at `start`; `None` if there is anything else.
    fn torn_batch(&self, start: u32) -> Option<Range<u32>> {
        let len = self.current.iter().map(|(_, header)| header.batch_len).max()?;
        let end = start.checked_add(len)?;
        let of_it = |(at, header): &(u32, SectorHeader)| header.batch_start == start && *at < end;
        // If all its sectors are valid and they still don't decode as a batch, it isn't torn.
        let whole = self.current.len() == len as usize;
        (self.damaged.is_empty() && self.current.iter().all(of_it) && !whole).then_some(start..end)
    }

    /// The range of sectors that were written in this use of the file, or may have been.
    fn extent(&self) -> Option<Range<u32>> {
        let written = self.current.iter().map(|(at, _)| *at).chain(self.damaged.iter().copied());
        let (first, last) = written.fold(None, |extent: Option<(u32, u32)>, at| {
            Some(extent.map_or((at, at), |(first, last)| (first.min(at), last.max(at))))
        })?;
        Some(first..last + 1)
    }
}

fn sectors_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len() / SECTOR).expect("a segment is bounded")
}

impl<'a> Reading<'a> {
    pub(crate) fn new(
        binding: Binding,
        state: State,
        copies: FoundCopies,
        findings: &'a mut Vec<Finding>,
    ) -> Reading<'a> {
        Reading {
            binding,
            hard: (state.hard_version, state.hard_state),
            hard_needed: state.hard_version,
            state,
            entries: VecDeque::new(),
            copies,
            findings,
            lost: None,
            gap: None,
            cut: (0, 0),
            torn: None,
            last_batch: None,
            checkpoint: None,
            earlier: Vec::new(),
            hard_may_be_later: false,
        }
    }

    fn place(&self, segment: u64, start: u32) -> Place {
        Place { binding: self.binding, segment, start }
    }

    /// Reads the next segment up to sector `end`, or to its last batch if `end` isn't known.
    pub(crate) fn segment(&mut self, sequence: u64, bytes: &[u8], end: Option<u32>, is_last: bool) {
        let limit = end.unwrap_or(u32::MAX).min(sectors_of(bytes));
        let mut at = 0;
        while at < limit {
            let next = (at..limit).find_map(|start| {
                let batch = batch::decode(self.place(sequence, start), bytes)?;
                (start + batch.len <= limit).then_some((start, batch))
            });
            let Some((start, batch)) = next else { break };
            if start > at {
                self.open_gap(sequence, at..start, bytes);
            }
            at = start + batch.len;
            self.take(sequence, start, batch);
        }
        match end {
            Some(end) if at < end => self.open_gap(sequence, at..end, bytes),
            None if is_last => self.tail(sequence, at, bytes),
            None => {
                if let Some(extent) = Beyond::of(self.place(sequence, at), at, bytes).extent() {
                    self.open_gap(sequence, extent, bytes);
                }
            }
            Some(_) => {}
        }
        if !is_last && self.lost.is_none() {
            self.earlier.push((sequence, self.state.last().index));
        }
    }

    /// Reads a newer segment without a whole checkpoint. It can hold no more than a torn checkpoint, unless it is
    /// damaged.
    pub(crate) fn begun(&mut self, sequence: u64, bytes: &[u8]) {
        let beyond = Beyond::of(self.place(sequence, 0), 0, bytes);
        let Some(extent) = beyond.extent() else { return };
        let file = segment_path(sequence);
        if beyond.torn_batch(0).is_some() {
            let what = "the beginning of a segment that was never in use is torn";
            self.findings.push(Finding::new(&file, extent, Severity::Harmless, what));
            return;
        }
        self.findings.push(Finding::new(
            &file,
            extent.clone(),
            Severity::Suspect,
            "a segment has no readable beginning",
        ));
        self.lose(self.cut, self.bound(&beyond, &extent));
        self.hard_may_be_later = true;
    }

    /// Notes unreadable sectors that another batch should follow.
    fn open_gap(&mut self, sequence: u64, sectors: Range<u32>, bytes: &[u8]) {
        let place = self.place(sequence, sectors.start);
        let headers = sectors.clone().filter_map(|at| match batch::classify_at(place, at, bytes) {
            Sector::Current(header) => Some(header.last_index),
            _ => None,
        });
        let last_index = headers.max().unwrap_or_default();
        let start = sectors.start;
        self.findings.push(Finding::new(&segment_path(sequence), sectors, Severity::Suspect, "damaged"));
        let finding = self.findings.len() - 1;
        let gap = self.gap.get_or_insert(Gap { at: (sequence, start), findings: Vec::new(), last_index });
        gap.findings.push(finding);
        gap.last_index = gap.last_index.max(last_index);
    }

    /// Applies a whole batch.
    fn take(&mut self, sequence: u64, start: u32, batch: Batch) {
        let unchanged = batch.log_version == self.state.log_version && batch.hard_version >= self.state.hard_version;
        if let Some(gap) = self.gap.take() {
            if unchanged && self.lost.is_none() {
                // The unreadable sectors held no entry, only a checkpoint or a hard state.
                for finding in gap.findings {
                    self.findings[finding].severity = Severity::Repaired;
                }
            } else {
                self.lose(gap.at, Some(gap.last_index));
            }
        } else if !unchanged && self.lost.is_none() {
            let what = "a batch before this one is missing";
            let sectors = start..start + batch.len;
            self.findings.push(Finding::new(&segment_path(sequence), sectors, Severity::Suspect, what));
            self.lose((sequence, start), Some(batch.last_index));
        }
        self.hard_needed = self.hard_needed.max(batch.hard_version);
        if self.lost.is_some() {
            return self.take_as_evidence(&batch);
        }
        self.state.hard_version = batch.hard_version;
        self.last_batch = Some((sequence, start, batch.len));
        for record in batch.records {
            if let Err(contradiction) = self.apply(record, sequence, start, batch.len) {
                let sectors = start..start + batch.len;
                self.findings.push(Finding::new(&segment_path(sequence), sectors, Severity::Suspect, &contradiction));
                return self.lose((sequence, start), Some(batch.last_index));
            }
        }
    }

    fn apply(&mut self, record: Record, sequence: u64, start: u32, len: u32) -> Result<(), String> {
        self.state.apply(&record)?;
        match record {
            Record::Checkpoint(checkpoint) => {
                if self.state.last() == Position::new(checkpoint.last.index, Term(0)) {
                    // The log was truncated to an entry before its first segment: see `Terms`.
                    self.state.cut_at(checkpoint.last);
                }
                if checkpoint.last != self.state.last() || checkpoint.base != self.state.base {
                    return Err(format!(
                        "the segment begins after {}, not after {}",
                        checkpoint.last,
                        self.state.last()
                    ));
                }
                if checkpoint.hard_version >= self.hard.0 {
                    self.hard = (checkpoint.hard_version, checkpoint.hard_state);
                    self.state.hard_state = checkpoint.hard_state;
                    self.state.hard_version = checkpoint.hard_version;
                }
                if start == 0 || self.checkpoint.is_none_or(|(segment, _)| segment != sequence) {
                    self.checkpoint = Some((sequence, len));
                }
            }
            Record::HardState(hard_state) => self.hard = (self.state.hard_version, hard_state),
            Record::Truncate(from) => {
                while self.entries.back().is_some_and(|entry| entry.index >= from) {
                    self.entries.pop_back();
                }
            }
            Record::Entry(entry) => self.entries.push_back(entry),
            Record::Snapshot(_) => self.entries.clear(),
            Record::Compacted(header) => {
                while self.entries.front().is_some_and(|entry| entry.index <= header.position.index) {
                    self.entries.pop_front();
                }
            }
            Record::Repaired | Record::Suspect(_) => {}
        }
        Ok(())
    }

    /// Uses a whole batch after damage only to see how far the log reached, and which vote was the last.
    fn take_as_evidence(&mut self, batch: &Batch) {
        let mut version = batch.hard_version;
        for record in &batch.records {
            let known = match record {
                Record::HardState(hard_state) => {
                    version += 1;
                    (version, *hard_state)
                }
                Record::Checkpoint(checkpoint) => (checkpoint.hard_version, checkpoint.hard_state),
                _ => continue,
            };
            self.hard_needed = self.hard_needed.max(known.0);
            if known.0 >= self.hard.0 {
                self.hard = known;
            }
        }
        self.extend_last_possible(Some(batch.last_index));
    }

    fn extend_last_possible(&mut self, last_possible: Option<Index>) {
        if let Some(lost) = &mut self.lost {
            lost.last_possible = lost.last_possible.zip(last_possible).map(|(one, two)| one.max(two));
        }
    }

    /// Notes that the log can't be trusted from `cut` on.
    fn lose(&mut self, cut: (u64, u32), last_possible: Option<Index>) {
        if self.lost.is_none() {
            let last = self.state.last();
            self.lost = Some(Lost { valid_up_to: last, last_possible: Some(last.index) });
            self.cut = cut;
            self.torn = None;
            self.earlier.retain(|(sequence, _)| *sequence < cut.0);
        }
        self.extend_last_possible(last_possible);
    }

    /// Examines the end of the log.
    fn tail(&mut self, sequence: u64, at: u32, bytes: &[u8]) {
        if self.lost.is_none() {
            self.cut = (sequence, at);
        }
        let beyond = Beyond::of(self.place(sequence, at), at, bytes);
        let file = segment_path(sequence);
        if let (Some(first), Some(last)) = (beyond.rotten.first(), beyond.rotten.last()) {
            let what = "bits have flipped where nothing is written";
            self.findings.push(Finding::new(&file, *first..last + 1, Severity::Harmless, what));
        }
        let Some(extent) = beyond.extent() else { return };
        if let Some(torn) = beyond.torn_batch(at) {
            self.findings.push(Finding::new(&file, torn.clone(), Severity::Harmless, TORN));
            if self.lost.is_none() {
                self.torn = Some(torn.start..torn.end.min(sectors_of(bytes)));
            }
            return;
        }
        let known = self.known_otherwise(sequence, at, &extent).filter(|end| *end <= sectors_of(bytes));
        if let Some(end) = known {
            let what = "damaged, but its other copy is good";
            self.findings.push(Finding::new(&file, extent, Severity::Repaired, what));
            self.cut = (sequence, end);
            return;
        }
        self.findings.push(Finding::new(&file, extent.clone(), Severity::Suspect, "damaged at the end of the log"));
        self.hard_may_be_later = true;
        let last_possible = self.bound(&beyond, &extent);
        self.lose((sequence, at), last_possible);
    }

    /// Whether damage after the last whole batch hit only a second checkpoint, or a batch that, by the copy of term and
    /// vote, held only that hard state. Returns where the damaged batch ends.
    fn known_otherwise(&self, sequence: u64, at: u32, extent: &Range<u32>) -> Option<u32> {
        if self.lost.is_some() {
            return None;
        }
        let second = self.checkpoint.filter(|(segment, len)| (*segment, *len) == (sequence, at));
        if let Some((_, len)) = second
            && extent.end <= at.checked_add(len)?
        {
            return Some(at + len);
        }
        let copy = self.copies.newest.filter(|copy| {
            !self.copies.damaged && copy.version > self.state.hard_version && copy.log_version == self.state.log_version
        })?;
        let (segment, start, len) = copy.extent?;
        let end = at.checked_add(len)?;
        ((segment, start) == (sequence, at) && extent.end <= end).then_some(end)
    }

    /// The greatest index that an entry in the damaged sectors can have; `None` if there is no bound.
    fn bound(&self, beyond: &Beyond, extent: &Range<u32>) -> Option<Index> {
        let named = beyond.current.iter().map(|(_, header)| header.last_index).max();
        let from = named.unwrap_or_default().max(self.state.last().index);
        let of_one_batch = beyond.current.first().is_some_and(|(_, first)| {
            let end = first.batch_start.saturating_add(first.batch_len);
            beyond.current.iter().all(|(_, header)| header == first) && extent.end <= end
        });
        if of_one_batch {
            return Some(from);
        }
        let most = (extent.end - extent.start) as usize * PAYLOAD / ENTRY_BYTES;
        from.0.checked_add(most as u64).map(Index)
    }

    /// Ends the reading, after all segments.
    pub(crate) fn finish(mut self, listing: Listing) -> Replay {
        if let Some(gap) = self.gap.take() {
            self.hard_may_be_later = true;
            self.lose(gap.at, None);
        }
        let at_checkpoint = self.checkpoint.is_some_and(|(segment, len)| (segment, len) == self.cut);
        self.state.hard_version = self.hard.0;
        self.state.hard_state = self.hard.1;
        let last_batch = self.last_batch.filter(|(segment, ..)| *segment == self.cut.0);
        Replay {
            lacks_second_checkpoint: at_checkpoint && self.lost.is_none(),
            last_batch: last_batch.filter(|_| self.lost.is_none()).map(|(_, start, len)| (start, len)),
            state: self.state,
            entries: self.entries,
            lost: self.lost,
            cut: self.cut,
            torn: self.torn,
            earlier: self.earlier,
            dead: Vec::new(),
            listing,
            copies: self.copies,
            hard_needed: self.hard_needed,
            hard_may_be_later: self.hard_may_be_later,
            log_lacks_hard_state: false,
            copy_is_stale: false,
            begins_anew: false,
        }
    }
}
