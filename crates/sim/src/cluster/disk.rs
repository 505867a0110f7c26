//! A simulated replica's disk: the real folder (`bowline-storage` on a [`bowline_storage::SimDisk`]), the writes that
//! wait, and a model of what must be durable.
//!
//! The replica's writes wait in the process until a sync takes a portion of them, like in the log thread of a server.
//! After a crash the real recovery runs, and its result is compared with what was promised: everything that was synced,
//! and any prefix of the portion under way (I18).

mod durable;
mod folder;

use std::collections::VecDeque;

use bowline_member::{LogStep, OpenedMember};
use bowline_node::{RecoveredNode, StoredSnapshot};
use bowline_raft::probe::{Probe, hit};
use bowline_raft::{
    HardState, Index, Membership, NodeId, PersistId, Position, Recovered, SnapshotHeader, Term, Time, Write,
};
use bowline_storage::{Options, SimDisk};

use crate::cluster::dice::Dice;
use crate::cluster::replica::Whole;
use durable::Durable;
use folder::{Folder, Found, STATE_FILE, Trouble, brief};

/// One item of the stream of writes.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// A snapshot from the leader. It precedes the write that needs it.
    File(StoredSnapshot),
    Write(PersistId, Write),
    /// A snapshot of the replica's own state machine is durable.
    Compact(SnapshotHeader),
}

impl From<LogStep> for Item {
    fn from(step: LogStep) -> Item {
        match step {
            LogStep::Write(id, write) => Item::Write(id, write),
            LogStep::Compact(header) => Item::Compact(header),
        }
    }
}

/// What a process finds on the disk when it starts.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) found: RecoveredNode,
    /// The folder of a whole member.
    pub(crate) member: Option<OpenedMember<SimDisk>>,
}

/// What a sync made durable.
#[derive(Debug, Default)]
pub(crate) struct Synced {
    pub(crate) up_to: Option<PersistId>,
    /// The snapshots that became durable.
    pub(crate) files: Vec<Index>,
}

/// The result of an operation of the disk.
#[derive(Debug)]
pub(crate) enum Ended<T> {
    Done(T),
    /// There is no room; it must be tried again.
    NoSpace,
    /// The process must stop.
    Failed(String),
}

/// What a crash or bit rot did to the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Number of unsynced writes that are gone.
    pub(crate) lost: usize,
    /// Whether a write was torn.
    pub(crate) torn: bool,
    /// Acknowledged entries may be missing now.
    pub(crate) suspect: bool,
    /// Why the disk can't be used any more, if it can't.
    pub(crate) ruined: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Disk {
    durable: Durable,
    folder: Folder,
    pending: VecDeque<Item>,
    /// How many pending items the sync under way covers.
    syncing: Option<usize>,
    /// How many of those the log took before it ran out of room.
    taken: usize,
    /// Snapshots of the replica's own state machine that are being stored, outside the stream.
    storing: VecDeque<StoredSnapshot>,
    /// The applied index at which the state's file was last made durable, if there is one.
    checkpoint: Option<Index>,
    /// What the next start will find, if that is known.
    expected: Option<Recovered>,
    /// Between a crash and the next start: the term and vote that the process had promised.
    last_told: Option<HardState>,
    losses: u32,
    /// The next start finds something that is known from its copy.
    pub(crate) repaired: bool,
    /// Sabotage, to test the simulator: this bit of the snapshot is flipped when it is read, and no check notices.
    trusted_rot: Option<u64>,
}

impl Disk {
    /// The disk of a new member. For `founders` see [`bowline_storage::create`]; `keeps` says that the state is on the
    /// disk too.
    pub(crate) fn new(replica: NodeId, founders: Option<Membership>, options: &Options, keeps: bool) -> Disk {
        let base = founders.clone().map(|membership| SnapshotHeader { position: Position::ORIGIN, membership });
        Disk {
            durable: Durable::founding(base),
            folder: Folder::found(replica, founders, options, keeps),
            pending: VecDeque::new(),
            syncing: None,
            taken: 0,
            storing: VecDeque::new(),
            checkpoint: keeps.then_some(Index(0)),
            expected: None,
            last_told: None,
            losses: 0,
            repaired: false,
            trusted_rot: None,
        }
    }

    /// Sabotage, to test the simulator: the disk reports syncs that it didn't do.
    pub(crate) fn lies(&self) {
        self.folder.lies();
    }

    pub(crate) fn write(&mut self, item: Item) {
        self.pending.push_back(item);
    }

    /// Starts a sync of the first `share` percent of the pending items, if there are any and no other sync is under
    /// way.
    pub(crate) fn start_sync(&mut self, share: u64) -> bool {
        if self.syncing.is_some() || self.pending.is_empty() {
            return false;
        }
        let all = self.pending.len();
        self.syncing = Some((all * share as usize).div_ceil(100).clamp(1, all));
        true
    }

    /// The sync under way ends.
    pub(crate) fn finish_sync(&mut self) -> Ended<Synced> {
        let mut synced = Synced::default();
        let Some(count) = self.syncing else { return Ended::Done(synced) };
        match self.folder.work(self.pending.iter().take(count), &mut self.taken) {
            Ok(()) => {}
            Err(Trouble::NoSpace) => return Ended::NoSpace,
            Err(Trouble::Fatal(why)) => return Ended::Failed(why),
        }
        (self.syncing, self.taken) = (None, 0);
        for item in self.pending.drain(..count) {
            match &item {
                Item::File(snapshot) => synced.files.push(snapshot.header.position.index),
                Item::Write(id, _) => synced.up_to = Some(*id),
                Item::Compact(_) => {}
            }
            self.durable.take(item);
        }
        Ended::Done(synced)
    }

    pub(crate) fn start_storing(&mut self, snapshot: StoredSnapshot) {
        self.storing.push_back(snapshot);
    }

    /// The replica's own snapshot becomes durable, so the log before it may be removed soon.
    pub(crate) fn finish_storing(&mut self) -> Ended<Option<Index>> {
        let Some(snapshot) = self.storing.front() else { return Ended::Done(None) };
        match self.folder.store(snapshot) {
            Ok(()) => {}
            Err(Trouble::NoSpace) => return Ended::NoSpace,
            Err(Trouble::Fatal(why)) => return Ended::Failed(why),
        }
        Ended::Done(self.compact_soon())
    }

    /// A member's log has written and synced these steps. Returns the last write among them.
    pub(crate) fn logged(&mut self, steps: Vec<LogStep>) -> Option<PersistId> {
        let mut up_to = None;
        for step in steps {
            if let LogStep::Write(id, _) = step {
                up_to = Some(id);
            }
            self.durable.take(step.into());
        }
        up_to
    }

    /// A member's state is durable up to this index.
    pub(crate) fn checkpointed(&mut self, applied: Index) {
        self.checkpoint = Some(applied);
        hit(Probe::StateCheckpointed);
    }

    /// The oldest of the snapshots being stored is durable. A later sync removes the log before it.
    fn compact_soon(&mut self) -> Option<Index> {
        let StoredSnapshot { header, .. } = self.storing.pop_front()?;
        let index = header.position.index;
        self.pending.push_back(Item::Compact(header));
        Some(index)
    }

    /// A new file holds the state, durably up to this index.
    pub(crate) fn rewritten(&mut self, index: Index) {
        self.checkpoint = Some(index);
        hit(Probe::StateRewritten);
    }

    /// A leader's snapshot has replaced the state's file, durably.
    pub(crate) fn installed(&mut self, index: Index) {
        self.checkpoint = Some(index);
    }

    /// Sabotage, to test the simulator: the last vote is lost.
    pub(crate) fn forget_vote(&mut self, found: &mut RecoveredNode) {
        self.durable.hard_state.voted_for = None;
        found.raft.hard_state.voted_for = None;
    }

    /// The process dies in the middle of its work; with `power`, the whole machine loses power. `member` is the running
    /// process, if it is a whole member, and the time that it sees.
    ///
    /// # Errors
    /// The next process would not find what was promised.
    pub(crate) fn crash(
        &mut self,
        power: bool,
        member: Option<(&mut Whole, Time)>,
        dice: &mut Dice,
    ) -> Result<Damage, String> {
        self.last_told = Some(self.durable.hard_state);
        let mut underway: Vec<Item> = self.pending.drain(..self.syncing.take().unwrap_or(0)).collect();
        let mut never_begun = self.pending.len();
        self.pending.clear();
        let storing: Vec<StoredSnapshot> = self.storing.drain(..).collect();
        let mut reaches = Vec::new();
        self.folder.begin_to_die(dice);
        if let Some((member, now)) = member {
            let rewrites = member.machine().is_rewriting();
            let (steps, left) = member.die_amid(now, !self.folder.has_forgotten(), dice);
            underway.extend(steps.into_iter().map(Item::from));
            never_begun += left;
            reaches.push(member.machine().applied());
            reaches.extend(member.machine().written().filter(|_| rewrites));
        } else {
            self.folder.die_amid(&underway, std::mem::take(&mut self.taken), &storing, dice);
        }
        self.folder.die();
        if power {
            self.folder.lose_power(dice);
        }
        let mut damage = self.settle(underway, &reaches, dice)?;
        damage.lost += never_begun;
        Ok(damage)
    }

    /// Makes the disk stop in the middle of one of the next operations, on the log or on a state's file.
    pub(crate) fn die_soon(&self, dice: &mut Dice) {
        self.folder.die_soon(dice);
    }

    /// Makes the next write or sync fail (D9).
    pub(crate) fn fail_soon(&self, dice: &mut Dice) {
        self.folder.fail_soon(dice);
    }

    /// Does some work in which a read may fail. Returns whether one did.
    pub(crate) fn failing_to_read<T>(&self, skip: u64, work: impl FnOnce() -> T) -> (T, bool) {
        self.folder.failing_to_read(skip, work)
    }

    /// What was written but not synced stays readable, but will never reach the disk.
    pub(crate) fn forget_dirty(&mut self) {
        self.folder.forget_dirty();
    }

    /// Bits flip in a segment of the log (D3, D4), a snapshot or the state's file (D5), or in the identity or the copy
    /// of term and vote (D6), of a replica that isn't running. Returns the file and the damage, if there is such a
    /// file.
    ///
    /// # Errors
    /// The next process would find damaged data without noticing.
    pub(crate) fn rot(&mut self, where_to: Rot, dice: &mut Dice) -> Result<Option<(String, Damage)>, String> {
        let is_meant = |path: &str| match where_to {
            Rot::Log | Rot::LogEnd => path.ends_with(".seg"),
            Rot::Snapshot => path.ends_with(".snap") || path == STATE_FILE,
            Rot::Vote => path == "hard-state" || path == "identity",
        };
        let Some(path) = self.folder.rot(is_meant, where_to == Rot::LogEnd, dice) else { return Ok(None) };
        // A later term or vote that the crash left was told to nobody, because no process has started with it. Its copy
        // may rot as long as the log has what was told.
        if let Some(told) = self.last_told.filter(|_| where_to == Rot::Vote) {
            let rehearsed = std::mem::replace(&mut self.durable.hard_state, told);
            let item = Item::Write(PersistId(0), Write::HardState(rehearsed));
            return Ok(Some((path, self.settle(vec![item], &[], dice)?)));
        }
        let damage = self.settle(Vec::new(), &[], dice)?;
        Ok(Some((path, damage)))
    }

    /// Sabotage, to test the simulator: a bit of the snapshot flips, and no check notices.
    pub(crate) fn rot_unseen(&mut self, bit: u64) {
        self.trusted_rot = Some(bit);
    }

    /// Whether an empty folder in place of this member's is refused.
    pub(crate) fn refuses_nothing(&self) -> bool {
        self.folder.refuses_nothing()
    }

    /// Limits the disk. `None` lifts the limit and cancels planned failures.
    pub(crate) fn limit(&mut self, room: Option<Room>) -> Ended<()> {
        self.folder.limit(room);
        if room.is_none() {
            self.folder.calm();
        }
        match self.folder.tend() {
            Err(Trouble::Fatal(why)) => Ended::Failed(why),
            _ => Ended::Done(()),
        }
    }

    /// Whether there is room for clients' writes and leaders' entries.
    pub(crate) fn has_room(&self) -> bool {
        self.folder.has_room()
    }

    /// Compares what the next start will find with what must be there: everything that was synced, and a prefix of
    /// `underway`. The state must be the one last made durable, or one that was being made durable: up to one of `reaches`.
    fn settle(&mut self, underway: Vec<Item>, reaches: &[Index], dice: &mut Dice) -> Result<Damage, String> {
        let mut damage = Damage::default();
        let found = match self.folder.rehearse(dice)? {
            Ok(found) => found,
            Err(error) if self.folder.damaged => {
                damage.ruined = Some(error.to_string());
                return Ok(damage);
            }
            Err(error) => return Err(format!("it can't be opened: {error}")),
        };
        damage.torn = found.torn;
        self.repaired = found.repaired;
        let Found { recovered, .. } = found;
        let mut votes = vec![self.durable.hard_state];
        votes.extend(underway.iter().filter_map(|item| match item {
            Item::Write(_, Write::HardState(hard_state)) => Some(*hard_state),
            _ => None,
        }));
        let whole = self.folder.damaged.then(|| self.durable.clone());
        let steps = single_steps(underway);
        damage.lost = steps.len();
        let mut voted = 0;
        let mut steps = steps.into_iter();
        let matches = loop {
            if self.durable.is_the_log_of(&recovered) && self.durable.suspect.is_some() == recovered.suspect.is_some() {
                break true;
            }
            let Some(step) = steps.next() else { break false };
            voted += usize::from(matches!(step, Item::Write(_, Write::HardState(_))));
            self.durable.take(step);
            damage.lost -= 1;
        };
        if !matches {
            let promised = format!("{} to {}", self.durable.base(), self.durable.last());
            let Some(whole) = whole else {
                return Err(format!("it holds {}, but {promised} was promised", brief(&recovered)));
            };
            self.durable = whole;
            voted = 0;
            self.lose(&recovered)?;
            damage.suspect = recovered.suspect.is_some();
        }
        if !votes[voted..].contains(&recovered.hard_state) {
            return Err(format!(
                "it holds {}, but the term and vote written were one of {:?}",
                brief(&recovered),
                &votes[voted..]
            ));
        }
        self.durable.set_hard_state(recovered.hard_state);
        self.settle_state(recovered.applied, reaches)?;
        self.expected = Some(recovered);
        Ok(damage)
    }

    /// Compares the applied index of the state with what was promised: the last durable state, or a leader's snapshot
    /// in its place once the log begins there. After bit rot an older state or none is allowed. Its content is judged
    /// when it is used.
    fn settle_state(&mut self, found: Index, reaches: &[Index]) -> Result<(), String> {
        let Some(durable) = self.checkpoint else { return Ok(()) };
        let base = self.durable.base().index;
        let promised = found == durable || reaches.contains(&found) || (found == base && base > durable);
        if !promised && !self.folder.damaged {
            return Err(format!("its state holds what was applied up to {found}, but was durable up to {durable}"));
        }
        self.checkpoint = Some(found);
        Ok(())
    }

    /// Accepts what bit rot left. Less than before is allowed, but the loss must be noticed.
    fn lose(&mut self, recovered: &Recovered) -> Result<(), String> {
        let last = self.durable.last();
        let left = recovered.entries.last().map(|entry| entry.index);
        let left = left.or(recovered.snapshot.as_ref().map(|header| header.position.index)).unwrap_or_default();
        let is_possible =
            |last_possible: Position| last_possible.index >= last.index && last_possible.term >= last.term;
        match recovered.suspect {
            None if left < last.index => {
                return Err(format!("it has lost {last} without noticing: {}", brief(recovered)));
            }
            Some(last_possible) if !is_possible(last_possible) => {
                let what = brief(recovered);
                return Err(format!("it reached {last}, but recovery says {last_possible} at most: {what}"));
            }
            _ => {}
        }
        self.durable.is_left_with(recovered);
        Ok(())
    }

    /// Whether this entry was lost and not brought back.
    pub(crate) fn owes(&self, position: Position) -> bool {
        self.durable.owes(position)
    }

    /// How often a process found that the log had lost something.
    pub(crate) fn losses(&self) -> u32 {
        self.losses
    }

    /// Whether a part of the log was lost and not brought back yet.
    pub(crate) fn is_suspect(&self) -> bool {
        self.durable.suspect.is_some() || self.durable.rolled_back
    }

    /// A copy of the disk as it is now.
    pub(crate) fn image(&self) -> Disk {
        Disk {
            durable: self.durable.clone(),
            folder: self.folder.image(),
            pending: VecDeque::new(),
            syncing: None,
            taken: 0,
            storing: VecDeque::new(),
            checkpoint: self.checkpoint,
            expected: None,
            last_told: None,
            losses: self.losses,
            repaired: self.repaired,
            trusted_rot: None,
        }
    }

    /// Takes the place of a disk that held more, as an old image does. What is missing is owed, and only the peers can
    /// know it.
    pub(crate) fn is_older_than(&mut self, newer: &Disk) {
        self.durable.rolls_back(&newer.durable);
        self.losses = newer.losses + 1;
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.storing.is_empty()
    }

    /// A process starts. `readable`: whether it can read all that is there.
    ///
    /// # Errors
    /// It can't start now. `Ok(Err)`: it finds something else than expected.
    pub(crate) fn start(&mut self, readable: bool, dice: &mut Dice) -> Result<Result<Start, String>, String> {
        if !readable {
            self.folder.fail_to_read(dice);
        }
        let opened = self.folder.open();
        self.folder.calm();
        let (mut found, member) = opened?;
        if let Some(expected) = &self.expected
            && *expected != found.raft
        {
            return Ok(Err(format!("it starts with {}, but held {}", brief(&found.raft), brief(expected))));
        }
        self.last_told = None;
        self.losses += u32::from(self.is_suspect());
        if let Some((bit, data)) = self.trusted_rot.zip(found.snapshot.as_mut().filter(|data| !data.is_empty())) {
            let mut bytes = data.to_vec();
            let at = bit % (bytes.len() as u64 * 8);
            bytes[(at / 8) as usize] ^= 1 << (at % 8);
            *data = bytes.into();
        }
        Ok(Ok(Start { found, member }))
    }

    /// The process gives up after it has opened the folder.
    pub(crate) fn close(&mut self) {
        self.folder.close();
    }

    /// The term of the durable entry at `index`; `None` outside the log.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        self.durable.term_at(index)
    }

    pub(crate) fn base(&self) -> Position {
        self.durable.base()
    }

    pub(crate) fn last(&self) -> Position {
        self.durable.last()
    }

    /// The configuration at `index`, as far as the disk knows it, and every later one.
    pub(crate) fn memberships_since(&self, index: Index) -> Vec<&Membership> {
        self.durable.memberships_since(index)
    }

    pub(crate) fn hard_state(&self) -> HardState {
        self.durable.hard_state
    }

    /// The candidate that got the durable vote of a term.
    pub(crate) fn vote_in(&self, term: Term) -> Option<NodeId> {
        self.durable.votes.get(&term).copied()
    }

    /// Whether a snapshot is on its way to the disk.
    pub(crate) fn is_storing(&self) -> bool {
        !self.storing.is_empty() || self.pending.iter().any(|item| matches!(item, Item::File(_)))
    }
}

/// How much more a disk takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// In bytes.
    pub(crate) more: u64,
    /// The log is on another disk, which has room.
    pub(crate) only_state: bool,
}

/// The files in which bits flip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rot {
    Log,
    /// The last sector of the log.
    LogEnd,
    Snapshot,
    Vote,
}

/// Splits items into records, because a crash may keep one record without the next.
fn single_steps(items: Vec<Item>) -> Vec<Item> {
    let single = |item| match item {
        Item::Write(id, Write::Append(entries)) => {
            entries.into_iter().map(|entry| Item::Write(id, Write::Append(vec![entry]))).collect()
        }
        item => vec![item],
    };
    items.into_iter().flat_map(single).collect()
}
