//! A simulated replica's disk: the real folder (`bowline-storage` on a [`bowline_storage::SimDisk`]), what
//! waits to be written there, and beside it what must be there by now.
//!
//! The replica's stream of writes waits in the process until a sync takes a portion of it, as at the log's
//! thread of a server. What a crash leaves is for the real recovery to say; here it is held against what was
//! promised: everything that was synced, and of the portion under way any first part (I18).

mod durable;
mod folder;
mod states;

use std::collections::VecDeque;

use bowline_node::{RecoveredNode, StoredSnapshot};
use bowline_raft::probe::{Probe, hit};
use bowline_raft::{HardState, Index, Membership, NodeId, PersistId, Position, Recovered, SnapshotHeader, Term, Write};
use bowline_storage::Options;

use crate::cluster::dice::Dice;
use crate::cluster::machine::Machine;
use crate::cluster::replica::OnDiskNode;
use durable::Durable;
use folder::{Folder, Found, Trouble, brief};

pub(crate) use states::{NewState, States};

/// One step of the stream.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    /// A snapshot from the leader, which precedes the write that needs it.
    File(StoredSnapshot),
    Write(PersistId, Write),
    /// A snapshot of the own state machine is durable.
    Compact(SnapshotHeader),
}

/// What a process starts with.
#[derive(Debug)]
pub(crate) struct Start {
    pub(crate) found: RecoveredNode,
    /// Its state, if that is in a file.
    pub(crate) state: Option<FoundState>,
}

/// The state of a process that keeps it in a file.
#[derive(Debug)]
pub(crate) struct FoundState {
    pub(crate) machine: Machine,
    pub(crate) states: States,
}

/// What a sync has made durable.
#[derive(Debug, Default)]
pub(crate) struct Synced {
    pub(crate) up_to: Option<PersistId>,
    /// Snapshots that are durable now.
    pub(crate) files: Vec<Index>,
}

/// How something that the disk was told to do has ended.
#[derive(Debug)]
pub(crate) enum Ended<T> {
    Done(T),
    /// There is no room: it must be tried again.
    NoSpace,
    /// The process must stop.
    Failed(String),
}

/// What a crash did to the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Damage {
    /// Unsynced writes that are gone.
    pub(crate) lost: usize,
    /// Whether a write was torn.
    pub(crate) torn: bool,
    /// Entries that were acknowledged may be missing, which was not so before.
    pub(crate) suspect: bool,
    /// Nothing of it can be used any more, and why.
    pub(crate) ruined: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Disk {
    durable: Durable,
    folder: Folder,
    pending: VecDeque<Item>,
    /// How many of them the sync under way covers.
    syncing: Option<usize>,
    /// How many of those the log has taken already: there was no room to go on.
    taken: usize,
    /// A snapshot of the own state machine that is being stored, beside the stream.
    storing: VecDeque<StoredSnapshot>,
    /// Up to where the file of the state was last made durable, if there is one.
    checkpoint: Option<Index>,
    /// What the next start will find, if that is known.
    expected: Option<Recovered>,
    /// After a crash, and before the next start: term and vote that the process had promised.
    last_told: Option<HardState>,
    losses: u32,
    /// Sabotage, to test the simulator: this bit of the snapshot is another when it is read, and nobody checks.
    trusted_rot: Option<u64>,
}

impl Disk {
    /// The disk of a new member; `founders` as in [`bowline_storage::create`]; `keeps`: the state is there too.
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
            trusted_rot: None,
        }
    }

    /// Sabotage, to test the simulator: it says that it has synced, and has not.
    pub(crate) fn lies(&self) {
        self.folder.lies();
    }

    pub(crate) fn write(&mut self, item: Item) {
        self.pending.push_back(item);
    }

    /// Starts a sync of the first `share` percent of what is written, if there is anything and no
    /// other sync is under way.
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

    /// The own snapshot becomes durable: soon the log before it may go.
    pub(crate) fn finish_storing(&mut self) -> Ended<Option<Index>> {
        let Some(snapshot) = self.storing.front() else { return Ended::Done(None) };
        match self.folder.store(snapshot) {
            Ok(()) => {}
            Err(Trouble::NoSpace) => return Ended::NoSpace,
            Err(Trouble::Fatal(why)) => return Ended::Failed(why),
        }
        let index = self.storing.pop_front().map(|snapshot| {
            let index = snapshot.header.position.index;
            self.pending.push_back(Item::Compact(snapshot.header));
            index
        });
        Ended::Done(index)
    }

    /// The own state becomes durable in its file: soon the log before it may go.
    pub(crate) fn finish_checkpoint(&mut self, node: &mut OnDiskNode) -> Ended<Option<Index>> {
        let Some(StoredSnapshot { header, .. }) = self.storing.front() else { return Ended::Done(None) };
        // Whoever asks first keeps the engine: see the server's `apply_thread.rs`.
        if !node.has_room() {
            return Ended::NoSpace;
        }
        if let Err(error) = node.checkpoint(header) {
            return Ended::Failed(error.to_string());
        }
        self.checkpoint = Some(node.machine().applied());
        hit(Probe::StateCheckpointed);
        let index = self.storing.pop_front().map(|snapshot| {
            let index = snapshot.header.position.index;
            self.pending.push_back(Item::Compact(snapshot.header));
            index
        });
        Ended::Done(index)
    }

    /// A leader's snapshot has taken the place of the state's file, durably. What was owed of the old one is not.
    pub(crate) fn installed(&mut self, index: Index) {
        self.checkpoint = Some(index);
        self.storing.clear();
    }

    /// Sabotage, to test the simulator: the last vote is gone.
    pub(crate) fn forget_vote(&mut self, found: &mut RecoveredNode) {
        self.durable.hard_state.voted_for = None;
        found.raft.hard_state.voted_for = None;
    }

    /// The process dies, somewhere in what it was doing; `power`: and the machine with it. `state`: what it has of
    /// its state's file, if there is one.
    ///
    /// # Errors
    /// What the next process would find is not what was promised.
    pub(crate) fn crash(
        &mut self,
        power: bool,
        state: Option<&mut OnDiskNode>,
        dice: &mut Dice,
    ) -> Result<Damage, String> {
        self.last_told = Some(self.durable.hard_state);
        let underway: Vec<Item> = self.pending.drain(..self.syncing.take().unwrap_or(0)).collect();
        let never_begun = self.pending.len();
        self.pending.clear();
        let storing: Vec<StoredSnapshot> = self.storing.drain(..).collect();
        let reaches = state.as_ref().filter(|_| !storing.is_empty()).map(|node| node.machine().applied());
        self.folder.die_amid(&underway, std::mem::take(&mut self.taken), &storing, state, dice);
        if power {
            self.folder.lose_power(dice);
        }
        let mut damage = self.settle(underway, reaches, dice)?;
        damage.lost += never_begun;
        Ok(damage)
    }

    /// Soon nothing is done any more, in the middle of something: of the log, or of a state that arrives or is kept.
    pub(crate) fn die_soon(&self, dice: &mut Dice) {
        self.folder.die_soon(dice);
    }

    /// The next write goes wrong (D9).
    pub(crate) fn fail_soon(&self, dice: &mut Dice) {
        self.folder.fail_soon(dice);
    }

    /// What was written and not synced is seen, and will never be on the disk.
    pub(crate) fn forget_dirty(&mut self) {
        self.folder.forget_dirty();
    }

    /// Bits flip in a segment of the log (D3, D4), a snapshot or the state's file (D5), or in the identity or the copy of
    /// term and vote (D6), of a replica that doesn't run. Says in which file, if there is one, and what that did.
    ///
    /// # Errors
    /// What the next process would find is neither whole nor said to be damaged.
    pub(crate) fn rot(&mut self, where_to: Rot, dice: &mut Dice) -> Result<Option<(String, Damage)>, String> {
        let is_meant = |path: &str| match where_to {
            Rot::Log => path.ends_with(".seg"),
            Rot::Snapshot => path.ends_with(".snap") || path == states::IN_USE,
            Rot::Vote => path == "hard-state" || path == "identity",
        };
        let Some(path) = self.folder.rot(is_meant, dice) else { return Ok(None) };
        // What the crash has left of a later term or vote was told to nobody: no process has started with it. Its
        // copy may rot, as long as the log has what was told.
        if let Some(told) = self.last_told.filter(|_| where_to == Rot::Vote) {
            let rehearsed = std::mem::replace(&mut self.durable.hard_state, told);
            let item = Item::Write(PersistId(0), Write::HardState(rehearsed));
            return Ok(Some((path, self.settle(vec![item], None, dice)?)));
        }
        let damage = self.settle(Vec::new(), None, dice)?;
        Ok(Some((path, damage)))
    }

    /// Sabotage, to test the simulator: a bit of the snapshot flips, and nobody checks.
    pub(crate) fn rot_unseen(&mut self, bit: u64) {
        self.trusted_rot = Some(bit);
    }

    /// Whether an empty folder is refused where this member's should be.
    pub(crate) fn refuses_nothing(&self) -> bool {
        self.folder.refuses_nothing()
    }

    /// Bounds the disk to so many further bytes, or not at all; then nothing is planned to go wrong either.
    pub(crate) fn limit(&mut self, more: Option<u64>) -> Ended<()> {
        self.folder.limit(more);
        if more.is_none() {
            self.folder.calm();
        }
        match self.folder.tend() {
            Err(Trouble::Fatal(why)) => Ended::Failed(why),
            _ => Ended::Done(()),
        }
    }

    /// Whether clients' writes and leaders' entries have a place.
    pub(crate) fn has_room(&self) -> bool {
        self.folder.has_room()
    }

    /// Holds what the next start will find against what must be there: everything that was synced, and a first
    /// part of what was under way. So must the state be that was last made durable, or the one that `reaches` so far
    /// and was about to be.
    fn settle(&mut self, underway: Vec<Item>, reaches: Option<Index>, dice: &mut Dice) -> Result<Damage, String> {
        let mut damage = Damage::default();
        let found = match self.folder.rehearse(dice)? {
            Ok(found) => found,
            Err(error) if self.folder.damaged => {
                damage.ruined = Some(error.to_string());
                return Ok(damage);
            }
            Err(error) => return Err(format!("it can't be opened any more: {error}")),
        };
        damage.torn = found.torn;
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
                return Err(format!("it holds {}, of what was promised up to {promised}", brief(&recovered)));
            };
            self.durable = whole;
            voted = 0;
            self.lose(&recovered)?;
            damage.suspect = recovered.suspect.is_some();
        }
        if !votes[voted..].contains(&recovered.hard_state) {
            return Err(format!("it holds {}, and was told {:?}", brief(&recovered), &votes[voted..]));
        }
        self.durable.set_hard_state(recovered.hard_state);
        self.settle_state(recovered.applied, reaches)?;
        self.expected = Some(recovered);
        Ok(damage)
    }

    /// Holds what the state reaches against what it must: all that was made durable, or a leader's snapshot in its
    /// place, as soon as the log begins there. Bits that have flipped may leave an older one, or none; what it holds
    /// is judged when it is taken in use.
    fn settle_state(&mut self, found: Index, reaches: Option<Index>) -> Result<(), String> {
        let Some(durable) = self.checkpoint else { return Ok(()) };
        let base = self.durable.base().index;
        let promised = found == durable || Some(found) == reaches || (found == base && base > durable);
        if !promised && !self.folder.damaged {
            return Err(format!("its state holds what was applied up to {found}, and was durable up to {durable}"));
        }
        self.checkpoint = Some(found);
        Ok(())
    }

    /// Bits have flipped: less may be left, but then it must be known.
    fn lose(&mut self, recovered: &Recovered) -> Result<(), String> {
        let last = self.durable.last();
        let left = recovered.entries.last().map(|entry| entry.index);
        let left = left.or(recovered.snapshot.as_ref().map(|header| header.position.index)).unwrap_or_default();
        let is_possible =
            |last_possible: Position| last_possible.index >= last.index && last_possible.term >= last.term;
        match recovered.suspect {
            None if left < last.index => {
                return Err(format!("it has lost {last}, and doesn't know: {}", brief(recovered)));
            }
            Some(last_possible) if !is_possible(last_possible) => {
                let what = brief(recovered);
                return Err(format!("it reached {last}, and is said to have reached {last_possible} at most: {what}"));
            }
            _ => {}
        }
        self.durable.is_left_with(recovered);
        Ok(())
    }

    /// Whether this was lost and not brought back.
    pub(crate) fn owes(&self, position: Position) -> bool {
        self.durable.owes(position)
    }

    /// How often a process has found that the log has lost something.
    pub(crate) fn losses(&self) -> u32 {
        self.losses
    }

    /// Whether a part of the log was lost that nobody has brought back yet.
    pub(crate) fn is_suspect(&self) -> bool {
        self.durable.suspect.is_some() || self.durable.rolled_back
    }

    /// The disk as it is now, for a copy.
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
            trusted_rot: None,
        }
    }

    /// Takes the place of a disk that held more, as an old image does: what is missing is owed, and nobody but the
    /// peers can know.
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
    /// It can't start now. `Ok(Err)`: it finds something else than what is there.
    pub(crate) fn start(&mut self, readable: bool, dice: &mut Dice) -> Result<Result<Start, String>, String> {
        if !readable {
            self.folder.fail_to_read(dice);
        }
        let opened = self.folder.open();
        self.folder.calm();
        let (mut found, state) = opened?;
        if let Some(expected) = &self.expected
            && *expected != found.raft
        {
            return Ok(Err(format!("it starts with {}, and held {}", brief(&found.raft), brief(expected))));
        }
        self.last_told = None;
        self.losses += u32::from(self.is_suspect());
        if let Some((bit, data)) = self.trusted_rot.zip(found.snapshot.as_mut().filter(|data| !data.is_empty())) {
            let mut bytes = data.to_vec();
            let at = bit % (bytes.len() as u64 * 8);
            bytes[(at / 8) as usize] ^= 1 << (at % 8);
            *data = bytes.into();
        }
        Ok(Ok(Start { found, state }))
    }

    /// The process gives up after it has looked at the folder.
    pub(crate) fn close(&mut self) {
        self.folder.close();
    }

    /// The term of the durable entry at `index`; `None` beyond the end and below the log's start.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        self.durable.term_at(index)
    }

    pub(crate) fn base(&self) -> Position {
        self.durable.base()
    }

    pub(crate) fn last(&self) -> Position {
        self.durable.last()
    }

    /// The configuration as of `index`, as far as the disk knows it, and every later one.
    pub(crate) fn memberships_since(&self, index: Index) -> Vec<&Membership> {
        self.durable.memberships_since(index)
    }

    pub(crate) fn hard_state(&self) -> HardState {
        self.durable.hard_state
    }

    /// Whom the durable vote of a term was for.
    pub(crate) fn vote_in(&self, term: Term) -> Option<NodeId> {
        self.durable.votes.get(&term).copied()
    }

    /// Whether a snapshot is on its way to the disk.
    pub(crate) fn is_storing(&self) -> bool {
        !self.storing.is_empty() || self.pending.iter().any(|item| matches!(item, Item::File(_)))
    }
}

/// Where bits flip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rot {
    Log,
    Snapshot,
    Vote,
}

/// The records that may be on the disk one without the next.
fn single_steps(items: Vec<Item>) -> Vec<Item> {
    let single = |item| match item {
        Item::Write(id, Write::Append(entries)) => {
            entries.into_iter().map(|entry| Item::Write(id, Write::Append(vec![entry]))).collect()
        }
        item => vec![item],
    };
    items.into_iter().flat_map(single).collect()
}
