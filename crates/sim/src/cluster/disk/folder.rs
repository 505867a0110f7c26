//! A replica's data folder: the log and the snapshots of `bowline-storage`, on a simulated disk.

use std::fmt;

use bowline_kv::store::{EngineError, RestoreError};
use bowline_member::OpenedMember;
use bowline_node::{RecoveredNode, StoredSnapshot};
use bowline_raft::{Membership, NodeId, Position, Random, Recovered, Write};
use bowline_storage::{
    ClusterId, Crash, Finding, Identity, Injection, Log, LogError, OpenError, Opened, Operation, Options, Recovery,
    Severity, SimDisk, SnapshotError, Snapshots, create, open,
};

use super::{Item, Room};
use crate::cluster::dice::Dice;

/// The file of the state in use.
pub(super) const STATE_FILE: &str = "state.redb";
/// The folder of the log.
const LOG: &str = "log";
/// The cache of that file is small, so that much is written before a sync.
const CACHE_BYTES: usize = 64 << 10;
/// Names the disk, in messages.
const PLACE: &str = "simulated disk";
const CLUSTER: ClusterId = ClusterId(0xb0);
/// A full disk takes entries only while it has room for this fraction of a segment.
const PORTION: u64 = 8;

/// Why something couldn't be written to the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// There is no room for it. It can be tried again when there is.
    NoSpace,
    /// Nobody knows what is durable: the process must stop.
    Fatal(String),
}

impl From<LogError> for Trouble {
    fn from(error: LogError) -> Trouble {
        match error {
            LogError::Passing(_) => Trouble::NoSpace,
            error => Trouble::Fatal(error.to_string()),
        }
    }
}

impl From<SnapshotError> for Trouble {
    fn from(error: SnapshotError) -> Trouble {
        match &error {
            SnapshotError::Disk(disk) if disk.is_passing() => Trouble::NoSpace,
            _ => Trouble::Fatal(error.to_string()),
        }
    }
}

/// What a start finds in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) recovered: Recovered,
    pub(super) torn: bool,
    /// Something was damaged, and is known from its copy.
    pub(super) repaired: bool,
}

impl Found {
    fn of(recovery: Recovery) -> Found {
        let torn = recovery.findings.iter().any(Finding::is_torn_write);
        let repaired = recovery.findings.iter().any(|finding| finding.severity == Severity::Repaired);
        Found { recovered: recovery.recovered, torn, repaired }
    }
}

/// The folder, and what a running process has open in it.
pub(super) struct Folder {
    disk: SimDisk,
    replica: NodeId,
    options: Options,
    opened: Option<(Log<SimDisk>, Snapshots<SimDisk>)>,
    /// The state is in a file of its own in the folder.
    keeps: bool,
    /// The system has discarded unsynced writes of this process. The next sync of an open file reports that.
    forgot: bool,
    /// The disk had no room for the next segment.
    full: bool,
    /// Bits were flipped at some time, so a start may find less than was written.
    pub(super) damaged: bool,
}

impl fmt::Debug for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Folder").field("replica", &self.replica).field("files", &self.disk.files()).finish()
    }
}

impl Folder {
    /// The folder of a new member; with `keeps` it also holds the state.
    pub(super) fn found(replica: NodeId, founders: Option<Membership>, options: &Options, keeps: bool) -> Folder {
        let disk = SimDisk::new();
        let identity = Identity { cluster: CLUSTER, replica, incarnation: replica.0 };
        create(&disk, &identity, founders, options).expect("an empty disk without a bound takes a folder");
        Folder {
            disk,
            replica,
            options: options.clone(),
            opened: None,
            keeps,
            forgot: false,
            full: false,
            damaged: false,
        }
    }

    /// A copy of the folder as it is now.
    pub(super) fn image(&self) -> Folder {
        Folder {
            disk: self.disk.fork(),
            replica: self.replica,
            options: self.options.clone(),
            opened: None,
            keeps: self.keeps,
            forgot: false,
            full: false,
            damaged: self.damaged,
        }
    }

    /// From now on the disk reports syncs that it doesn't do.
    pub(super) fn lies(&self) {
        self.disk.set_lies(true);
    }

    /// What a process would find if it started now; the folder isn't changed. A second start must find the same, also
    /// after a power failure during the first one, if nothing is unsynced.
    pub(super) fn rehearse(&self, dice: &mut Dice) -> Result<Result<Found, OpenError>, String> {
        let look = |disk: &SimDisk| {
            Ok(match self.open_on(disk)? {
                Content::Member(member) => member.recovery,
                Content::Log(opened) => opened.recovery,
            })
        };
        let disk = self.disk.fork();
        disk.set_capacity(None);
        let first = look(&disk).map(Found::of);
        let Ok(found) = &first else { return Ok(first) };
        let again = look(&disk).map(Found::of);
        agree(found, again, "twice")?;
        // A start that repairs something may be interrupted at many points. Opening a state's file takes long.
        let interrupted = if found.repaired && !self.keeps { 8 } else { u32::from(dice.percent(25)) };
        let interrupted = if self.disk.is_dirty() { 0 } else { interrupted };
        for _ in 0..interrupted {
            let disk = self.disk.fork();
            disk.set_capacity(None);
            plan_death(&disk, dice);
            let _ = look(&disk);
            let crashed = disk.crash(kind(dice), &mut Random::new(dice.word()));
            agree(found, look(&crashed).map(Found::of), "after an interrupted start")?;
        }
        Ok(first)
    }

    /// Opens the folder: as a server does, if it keeps the state.
    fn open_on(&self, disk: &SimDisk) -> Result<Content, OpenError> {
        let of = (CLUSTER, self.replica);
        if self.keeps {
            let accept = |_: &Recovery| Ok::<(), Unusable>(());
            let opened = bowline_member::open(disk, of, &self.options, CACHE_BYTES, accept);
            return Ok(Content::Member(Box::new(opened.map_err(|Unusable(error)| error)?)));
        }
        Ok(Content::Log(Box::new(open(disk, of.0, of.1, &self.options)?)))
    }

    /// A process starts. Returns what it finds, with the folder of a member or the data of its snapshot.
    pub(super) fn open(&mut self) -> Result<(RecoveredNode, Option<OpenedMember<SimDisk>>), String> {
        self.full = false;
        match self.open_on(&self.disk).map_err(|error| error.to_string())? {
            Content::Member(member) => {
                let raft = member.recovery.recovered.clone();
                Ok((RecoveredNode { raft, snapshot: None }, Some(*member)))
            }
            Content::Log(opened) => {
                let Opened { recovery, log, snapshots, .. } = *opened;
                let snapshot = match recovery.snapshot {
                    Some(position) => {
                        Some(snapshots.load(position, u64::MAX).map_err(|error| error.to_string())?.1.into())
                    }
                    None => None,
                };
                self.opened = Some((log, snapshots));
                Ok((RecoveredNode { raft: recovery.recovered, snapshot }, None))
            }
        }
    }

    /// Whether an empty folder in place of a known member's is refused (D13).
    pub(super) fn refuses_nothing(&self) -> bool {
        matches!(open(&SimDisk::new(), CLUSTER, self.replica, &self.options).err(), Some(OpenError::Missing { .. }))
    }

    pub(super) fn close(&mut self) {
        self.opened = None;
    }

    fn opened(&mut self) -> Result<&mut (Log<SimDisk>, Snapshots<SimDisk>), Trouble> {
        self.opened.as_mut().ok_or_else(|| Trouble::Fatal("no process has the folder open".to_owned()))
    }

    /// Does a portion of the log's work like the server's log thread. The first `done` items are already appended, but
    /// not synced.
    pub(super) fn work<'a>(&mut self, items: impl Iterator<Item = &'a Item>, done: &mut usize) -> Result<(), Trouble> {
        let mut marked = None;
        for (at, item) in items.enumerate() {
            let (log, snapshots) = self.opened()?;
            if let Item::Write(_, Write::Snapshot(header)) | Item::Compact(header) = item {
                marked = Some(header.position.index);
            }
            if at < *done {
                continue;
            }
            match item {
                Item::File(snapshot) => snapshots.store(&snapshot.header, &snapshot.data)?,
                Item::Compact(header) => log.compact(header)?,
                Item::Write(_, write) => log.append(write)?,
            }
            *done += 1;
        }
        let (log, snapshots) = self.opened()?;
        log.sync()?;
        if let Some(index) = marked {
            snapshots.prune(index).map_err(|error| Trouble::Fatal(error.to_string()))?;
        }
        self.tend()
    }

    /// Stores a snapshot of the own state machine.
    pub(super) fn store(&mut self, snapshot: &StoredSnapshot) -> Result<(), Trouble> {
        let (_, snapshots) = self.opened()?;
        Ok(snapshots.store(&snapshot.header, &snapshot.data)?)
    }

    /// Creates the next segment before it is needed. A whole member does that itself.
    pub(super) fn tend(&mut self) -> Result<(), Trouble> {
        if self.keeps {
            return Ok(());
        }
        let (log, _) = self.opened()?;
        if log.stats().spares == 0 {
            let made = log.spare_job()?.map_or(Ok(()), |job| job.run());
            match made {
                Ok(()) => self.full = false,
                Err(error) if error.is_passing() => self.full = true,
                Err(error) => return Err(Trouble::Fatal(error.to_string())),
            }
        } else {
            self.full = false;
        }
        Ok(())
    }

    /// Whether clients' writes and leaders' entries have a place.
    pub(super) fn has_room(&self) -> bool {
        let admits = |(log, _): &(Log<SimDisk>, _)| log.admits(self.options.segment_bytes / PORTION);
        !self.full || self.opened.as_ref().is_some_and(admits)
    }

    /// Limits the disk; `None` lifts the limit.
    pub(super) fn limit(&self, room: Option<Room>) {
        self.disk.set_apart(room.filter(|room| room.only_state).map(|_| LOG));
        self.disk.set_capacity(room.map(|room| self.disk.used() + room.more));
    }

    /// Mostly, the process dies in the middle of one of its next operations.
    pub(super) fn begin_to_die(&self, dice: &mut Dice) {
        if dice.percent(80) {
            plan_death(&self.disk, dice);
        }
    }

    /// The process dies in the middle of its work on the disk: in the work of the log, or in storing its own snapshots.
    pub(super) fn die_amid(&mut self, items: &[Item], done: usize, storing: &[StoredSnapshot], dice: &mut Dice) {
        let log_first = dice.percent(50);
        for log in [log_first, !log_first] {
            if log && !items.is_empty() {
                let _ = self.work(items.iter(), &mut { done });
            } else if !log {
                let _ = storing.iter().try_for_each(|snapshot| self.store(snapshot));
            }
        }
    }

    /// The process is dead.
    pub(super) fn die(&mut self) {
        self.close();
        self.disk.calm();
        self.forgot = false;
        if self.keeps {
            // A copy, so that files the dead process still has open can't change it.
            self.disk = self.disk.fork();
        }
    }

    /// Whether the system has discarded unsynced writes: the next sync of an open file would report that.
    pub(super) fn has_forgotten(&self) -> bool {
        self.forgot
    }

    /// The disk will soon stop, in the middle of whatever the process does then.
    pub(super) fn die_soon(&self, dice: &mut Dice) {
        plan_death(&self.disk, dice);
    }

    /// The power fails. Any part of what was not synced may be lost.
    pub(super) fn lose_power(&mut self, dice: &mut Dice) {
        self.close();
        self.disk = self.disk.crash(kind(dice), &mut Random::new(dice.word()));
    }

    /// Makes the next sync or write of the log fail.
    pub(super) fn fail_soon(&self, dice: &mut Dice) {
        let operation = dice.pick(&[Operation::Sync, Operation::Sync, Operation::Write, Operation::SyncDir]);
        let operation = operation.unwrap_or(Operation::Sync);
        self.disk.set_forgets(dice.percent(50));
        self.disk.inject(Injection::Fail { operation, skip: 0 });
    }

    /// After a failed sync some systems discard what was not written.
    pub(super) fn forget_dirty(&mut self) {
        self.forgot = true;
        for (path, _) in self.disk.files() {
            self.disk.forget_dirty(&path);
        }
    }

    /// The next start can't read everything.
    pub(super) fn fail_to_read(&self, dice: &mut Dice) {
        let skip = dice.magnitude(1, 64) - 1;
        self.disk.inject(Injection::Fail { operation: Operation::Read, skip });
    }

    /// Does some work. The read after `skip` others fails. Returns whether there was such a read.
    pub(super) fn failing_to_read<T>(&self, skip: u64, work: impl FnOnce() -> T) -> (T, bool) {
        self.disk.inject(Injection::Fail { operation: Operation::Read, skip });
        let done = work();
        (done, !self.disk.cancel(Operation::Read))
    }

    pub(super) fn calm(&self) {
        self.disk.calm();
    }

    /// Flips bits in a file whose name `is_meant`, mostly the newest one; the state's file may be lost altogether. `end`:
    /// in the last sector of the newest one. Returns the name.
    pub(super) fn rot(&mut self, is_meant: impl Fn(&str) -> bool, end: bool, dice: &mut Dice) -> Option<String> {
        let files = self.disk.files();
        let mut meant = files.iter().rev().filter(|(path, size)| is_meant(path) && *size > 0);
        let pick = if end || dice.percent(80) { 0 } else { dice.index(3) };
        let (path, size) =
            meant.nth(pick).or_else(|| files.iter().rev().find(|(path, size)| is_meant(path) && *size > 0))?;
        if path == STATE_FILE && dice.percent(15) {
            self.disk.lose(path);
            self.damaged = true;
            return Some(path.clone());
        }
        let content = self.disk.content(path)?;
        // Only the part with data counts: the rest of a segment is zeros.
        let until = content.iter().rposition(|byte| *byte != 0).map_or(*size, |last| last as u64 + 1);
        let from = match end {
            true => (until - 1) / 512 * 512,
            false if dice.percent(50) => until.saturating_sub(4 * 512),
            false => 0,
        };
        let mut byte = dice.between(from, until - 1);
        if path == STATE_FILE {
            // Most of this file is free pages, so skip to a byte with data.
            let written = content[byte as usize..].iter().position(|byte| *byte != 0);
            byte += written.unwrap_or_default() as u64;
        }
        let first = byte * 8;
        self.disk.flip(path, first + dice.below(8));
        // Often a whole sector is damaged, not just one bit.
        for _ in 0..dice.pick(&[0, 0, 2, 40]).unwrap_or(0) {
            let byte = (first / 8 / 512 * 512 + dice.below(512)).min(size - 1);
            self.disk.flip(path, byte * 8 + dice.below(8));
        }
        self.damaged = true;
        Some(path.clone())
    }
}

/// An opened folder.
enum Content {
    Member(Box<OpenedMember<SimDisk>>),
    Log(Box<Opened<SimDisk>>),
}

/// Why a member's folder can't be opened.
struct Unusable(OpenError);

impl From<OpenError> for Unusable {
    fn from(error: OpenError) -> Unusable {
        Unusable(error)
    }
}

impl From<SnapshotError> for Unusable {
    fn from(error: SnapshotError) -> Unusable {
        Unusable(match error {
            SnapshotError::Disk(error) => error.into(),
            error => OpenError::State { place: PLACE.to_owned(), why: error.to_string() },
        })
    }
}

impl From<RestoreError> for Unusable {
    fn from(error: RestoreError) -> Unusable {
        Unusable(OpenError::State { place: PLACE.to_owned(), why: error.to_string() })
    }
}

impl From<EngineError> for Unusable {
    fn from(error: EngineError) -> Unusable {
        Unusable(OpenError::State { place: PLACE.to_owned(), why: error.to_string() })
    }
}

/// Makes the process die in one of its next operations.
fn plan_death(disk: &SimDisk, dice: &mut Dice) {
    let operation = dice.pick(&[Operation::Write, Operation::Sync, Operation::Name, Operation::SyncDir]);
    let skip = dice.magnitude(1, 8) - 1;
    disk.inject(Injection::Die { operation: operation.unwrap_or(Operation::Write), skip });
}

fn kind(dice: &mut Dice) -> Crash {
    dice.pick(&Crash::ALL).unwrap_or(Crash::KeepNone)
}

/// I18: a second recovery must find the same as the first.
fn agree(first: &Found, again: Result<Found, OpenError>, how: &str) -> Result<(), String> {
    match again {
        Ok(again) if is_same(&first.recovered, &again.recovered) => Ok(()),
        Ok(again) => {
            Err(format!("recovered {how}, it differs: {} and {}", brief(&first.recovered), brief(&again.recovered)))
        }
        Err(error) => Err(format!("it can be recovered once, but not {how}: {error}")),
    }
}

/// Whether two recoveries tell the core the same. If the first one has restored the state from a snapshot, the second one
/// finds that state in its file, and the log before it is still there.
fn is_same(first: &Recovered, again: &Recovered) -> bool {
    let base = |recovered: &Recovered| recovered.snapshot.as_ref().map_or(Position::ORIGIN, |header| header.position);
    let (earlier, later) = if base(again) < base(first) { (again, first) } else { (first, again) };
    let from = base(later);
    let goes_on = earlier.entries.iter().filter(|entry| entry.index > from.index).eq(&later.entries);
    let holds = base(earlier) == from || earlier.entries.iter().any(|entry| entry.position() == from);
    (first.hard_state, first.suspect, first.applied) == (again.hard_state, again.suspect, again.applied)
        && goes_on
        && holds
}

pub(super) fn brief(recovered: &Recovered) -> String {
    let base = recovered.snapshot.as_ref().map(|header| header.position.to_string()).unwrap_or_default();
    let last = recovered.entries.last().map(|entry| entry.position().to_string()).unwrap_or_default();
    let state = recovered.hard_state;
    format!(
        "{}, vote {:?}, from {base:?} to {last:?} ({} entries), suspect {:?}",
        state.term,
        state.voted_for,
        recovered.entries.len(),
        recovered.suspect
    )
}
