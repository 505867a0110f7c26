//! A disk in memory that loses at a crash what a real one may lose, and fails on request.
//!
//! It uses no clock and no global random source: a crash takes its randomness from the
//! caller, so the same run gives the same disk, byte for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use bowline_raft::Random;

use super::survival::{Chooser, Crash, pieces};
use super::{Disk, DiskError, DiskErrorKind, File, SECTOR};

/// A simulated disk. A clone is another handle to the same one; [`SimDisk::fork`] is a copy.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// An open file of a simulated disk.
#[derive(Debug)]
pub struct SimFile {
    state: Arc<Mutex<State>>,
    inode: u64,
    path: String,
}

/// A lock on a simulated disk; released when dropped.
#[derive(Debug)]
pub struct SimLock {
    state: Arc<Mutex<State>>,
    path: String,
}

/// An operation that changes a disk, or may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Reading from a file.
    Read,
    /// Writing to a file.
    Write,
    /// Syncing a file.
    Sync,
    /// Making, renaming or removing a name.
    Name,
    /// Syncing a folder.
    SyncDir,
}

/// A fault to happen once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injection {
    /// The operation of this kind after `skip` others of its kind fails with an I/O error.
    Fail {
        /// Which kind.
        operation: Operation,
        /// How many of the kind succeed before.
        skip: u64,
    },
    /// The operation of this kind after `skip` others of its kind is refused for lack of resources: nothing is
    /// done, and the next one succeeds.
    Refuse {
        /// Which kind.
        operation: Operation,
        /// How many of the kind succeed before.
        skip: u64,
    },
    /// The write after `skip` others lands `by` sectors beyond its right place in the file.
    Misdirect {
        /// How many writes go right before.
        skip: u64,
        /// How far off, in sectors.
        by: u64,
    },
    /// The process dies just before the operation of this kind after `skip` others: that operation fails, and so does
    /// every later one, until [`SimDisk::calm`].
    Die {
        /// Which kind.
        operation: Operation,
        /// How many of the kind succeed before.
        skip: u64,
    },
    /// The sync after `skip` others reports success without syncing.
    Lie {
        /// How many honest syncs come before.
        skip: u64,
    },
}

#[derive(Clone, Debug, Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    pending_names: Vec<NameChange>,
    locked: BTreeSet<String>,
    capacity: Option<u64>,
    /// A folder that `capacity` doesn't concern, because it lies on another disk.
    apart: Option<&'static str>,
    counts: BTreeMap<Operation, u64>,
    injections: Vec<Planned>,
    /// The process that used it is dead: every operation fails.
    dead: bool,
    /// Every sync of a file reports success without syncing.
    lies: bool,
    /// A failed sync of a file makes its unsynced writes look written.
    forgets: bool,
}

/// An injection with the operation count at which it happens.
#[derive(Clone, Copy, Debug)]
struct Planned {
    injection: Injection,
    operation: Operation,
    at: u64,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    now: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    pending: Vec<Arc<Change>>,
}

/// An unsynced change of a file.
#[derive(Debug)]
enum Change {
    Write { offset: u64, data: Vec<u8> },
    Resize { bytes: usize },
}

impl Change {
    /// How many parts of it survive independently.
    fn parts(&self) -> usize {
        match self {
            Change::Write { offset, data } => pieces(*offset, data).count(),
            Change::Resize { .. } => 1,
        }
    }

    /// Applies the wanted parts.
    fn apply(&self, bytes: &mut Arc<Vec<u8>>, mut wanted: impl FnMut(usize) -> bool) {
        match self {
            Change::Write { offset, data } => {
                for (at, (offset, piece)) in pieces(*offset, data).enumerate() {
                    if wanted(at) {
                        overwrite(Arc::make_mut(bytes), offset, piece);
                    }
                }
            }
            Change::Resize { bytes: size } => {
                if wanted(0) {
                    Arc::make_mut(bytes).resize(*size, 0);
                }
            }
        }
    }
}

#[derive(Clone, Debug)]
enum NameChange {
    Create { path: String, inode: u64 },
    Rename { from: String, to: String },
    Remove { path: String },
}

impl NameChange {
    fn path(&self) -> &str {
        match self {
            NameChange::Create { path, .. } | NameChange::Remove { path } => path,
            NameChange::Rename { from, .. } => from,
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            NameChange::Create { path, inode } => {
                names.insert(path.clone(), *inode);
            }
            NameChange::Rename { from, to } => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
            NameChange::Remove { path } => {
                names.remove(path);
            }
        }
    }
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn overwrite(bytes: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let start = usize::try_from(offset).expect("a simulated file fits into memory");
    let end = start + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[start..end].copy_from_slice(data);
}

impl State {
    /// Counts an operation; returns the injection that is due, if any.
    fn count(&mut self, operation: Operation) -> Option<Injection> {
        if self.dead {
            return Some(Injection::Fail { operation, skip: 0 });
        }
        let count = self.counts.entry(operation).or_insert(0);
        let at = *count;
        *count += 1;
        if self.injections.is_empty() {
            return None;
        }
        let struck = self.injections.iter().position(|planned| planned.operation == operation && planned.at == at)?;
        let injection = self.injections.remove(struck).injection;
        self.dead = matches!(injection, Injection::Die { .. });
        Some(injection)
    }

    fn attempt(&mut self, operation: Operation, verb: &'static str, path: &str) -> Result<(), DiskError> {
        match self.count(operation) {
            Some(Injection::Fail { .. } | Injection::Die { .. }) => {
                Err(error(verb, path, DiskErrorKind::Io, "injected I/O error"))
            }
            Some(Injection::Refuse { .. }) => {
                Err(error(verb, path, DiskErrorKind::NoResources, "injected: too many open files"))
            }
            _ => Ok(()),
        }
    }

    fn change_names(&mut self, verb: &'static str, change: NameChange) -> Result<(), DiskError> {
        self.attempt(Operation::Name, verb, change.path())?;
        change.apply(&mut self.names);
        self.pending_names.push(change);
        Ok(())
    }

    fn is_apart(&self, path: &str) -> bool {
        self.apart.is_some_and(|apart| folder_of(path) == apart)
    }

    fn used(&self) -> u64 {
        let counted = self.names.iter().filter(|(path, _)| !self.is_apart(path));
        counted.filter_map(|(_, inode)| self.inodes.get(inode)).map(|inode| inode.now.len() as u64).sum()
    }

    fn free(&self) -> u64 {
        self.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.used()))
    }

    /// Free bytes for a file.
    fn free_for(&self, path: &str) -> u64 {
        if self.is_apart(path) { u64::MAX } else { self.free() }
    }

    fn inode(&mut self, inode: u64, verb: &'static str, path: &str) -> Result<&mut Inode, DiskError> {
        self.inodes.get_mut(&inode).ok_or_else(|| error(verb, path, DiskErrorKind::Io, "the file was removed"))
    }

    /// Forgets files that have no name, neither now nor after a crash.
    fn forget_nameless(&mut self) {
        if self.pending_names.is_empty() {
            let named: BTreeSet<u64> = self.names.values().chain(self.durable_names.values()).copied().collect();
            self.inodes.retain(|inode, _| named.contains(inode));
        }
    }
}

fn error(operation: &'static str, path: &str, kind: DiskErrorKind, reason: &str) -> DiskError {
    DiskError { operation, path: path.to_owned(), kind, reason: reason.to_owned() }
}

/// Calls for tests.
impl SimDisk {
    /// An empty disk of unlimited size.
    #[must_use]
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Copies the disk in its present state, including what is not durable yet.
    #[must_use]
    pub fn fork(&self) -> SimDisk {
        let mut state = self.state().clone();
        state.locked.clear();
        (state.injections, state.dead) = (Vec::new(), false);
        SimDisk { state: Arc::new(Mutex::new(state)) }
    }

    /// The disk that a process finds after a power failure now: `crash` decides what survives of the unsynced changes.
    #[must_use]
    pub fn crash(&self, crash: Crash, random: &mut Random) -> SimDisk {
        let state = self.state();
        let pending: usize = state.inodes.values().map(|inode| inode.pending.len()).sum();
        let mut chooser = Chooser::new(crash, pending, state.pending_names.len(), random);
        let mut names = state.durable_names.clone();
        for change in &state.pending_names {
            if chooser.keeps_name() {
                change.apply(&mut names);
            }
        }
        let mut survivors = BTreeMap::new();
        // Every file gets its random choices, so that they don't depend on which names survived.
        for (number, inode) in &state.inodes {
            let mut bytes = Arc::clone(&inode.durable);
            for written in &inode.pending {
                let keep = chooser.begin_write(written.parts());
                written.apply(&mut bytes, |at| keep.sector(at, &mut chooser));
            }
            if names.values().any(|named| named == number) {
                survivors.insert(*number, Inode { now: Arc::clone(&bytes), durable: bytes, pending: Vec::new() });
            }
        }
        let crashed = State {
            inodes: survivors,
            next_inode: state.next_inode,
            durable_names: names.clone(),
            names,
            capacity: state.capacity,
            apart: state.apart,
            lies: state.lies,
            forgets: state.forgets,
            ..State::default()
        };
        SimDisk { state: Arc::new(Mutex::new(crashed)) }
    }

    /// Limits the bytes of all files together, without those of the folder [`SimDisk::set_apart`]; `None` removes the
    /// limit.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.state().capacity = capacity;
    }

    /// Puts a folder on a disk of its own, without a limit. `None`: all files share one disk.
    pub fn set_apart(&self, folder: Option<&'static str>) {
        self.state().apart = folder;
    }

    /// Bytes of all files that share the limit.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// Free bytes; [`u64::MAX`] without a limit.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.state().free()
    }

    /// Plans a fault.
    pub fn inject(&self, injection: Injection) {
        let mut state = self.state();
        let (operation, skip) = match injection {
            Injection::Fail { operation, skip }
            | Injection::Refuse { operation, skip }
            | Injection::Die { operation, skip } => (operation, skip),
            Injection::Misdirect { skip, .. } => (Operation::Write, skip),
            Injection::Lie { skip } => (Operation::Sync, skip),
        };
        let at = state.counts.get(&operation).copied().unwrap_or(0) + skip;
        state.injections.push(Planned { injection, operation, at });
    }

    /// Whether a power failure now could lose anything.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        let state = self.state();
        !state.pending_names.is_empty() || state.inodes.values().any(|inode| inode.now != inode.durable)
    }

    /// Cancels all planned faults, and revives a dead process.
    pub fn calm(&self) {
        let mut state = self.state();
        (state.injections, state.dead) = (Vec::new(), false);
    }

    /// Cancels the planned faults of a kind of operation. Returns whether there were any.
    pub fn cancel(&self, operation: Operation) -> bool {
        let mut state = self.state();
        let before = state.injections.len();
        state.injections.retain(|planned| planned.operation != operation);
        state.injections.len() < before
    }

    /// Switches whether every sync of a file reports success without syncing.
    pub fn set_lies(&self, lies: bool) {
        self.state().lies = lies;
    }

    /// Switches whether a failed sync of a file makes its unsynced writes look written: reads show them, and the next
    /// sync succeeds without making them durable.
    pub fn set_forgets(&self, forgets: bool) {
        self.state().forgets = forgets;
    }

    /// How many operations of a kind there have been.
    #[must_use]
    pub fn count(&self, operation: Operation) -> u64 {
        self.state().counts.get(&operation).copied().unwrap_or(0)
    }

    /// All files, sorted by name, with their sizes in bytes.
    #[must_use]
    pub fn files(&self) -> Vec<(String, u64)> {
        let state = self.state();
        let size = |inode: &u64| state.inodes.get(inode).map_or(0, |inode| inode.now.len() as u64);
        state.names.iter().map(|(path, inode)| (path.clone(), size(inode))).collect()
    }

    /// The content of a file; `None` if there is none of that name.
    #[must_use]
    pub fn content(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.state();
        Some(state.inodes.get(state.names.get(path)?)?.now.to_vec())
    }

    /// Changes the content of a file directly and durably, without counting it as an operation. Its unsynced writes reach
    /// the disk before that: otherwise they could undo the change at a power failure.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn damage(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let inode = *state.names.get(path).expect("the file to damage is there");
        let inode = state.inodes.get_mut(&inode).expect("every name has a file");
        let bytes = Arc::make_mut(&mut inode.now);
        change(bytes);
        inode.durable = Arc::clone(&inode.now);
        inode.pending.clear();
    }

    /// Flips one bit of a file, counted from its start.
    ///
    /// # Panics
    /// If there is no such file, or no such bit in it.
    pub fn flip(&self, path: &str, bit: u64) {
        let byte = usize::try_from(bit / 8).expect("a simulated file fits into memory");
        self.damage(path, |bytes| bytes[byte] ^= 1 << (bit % 8));
    }

    /// Forgets that the unsynced writes of a file are dirty: reads show them, but no later sync makes them durable.
    /// Some systems do that after a failed sync.
    pub fn forget_dirty(&self, path: &str) {
        let mut state = self.state();
        let inode = state.names.get(path).copied();
        if let Some(inode) = inode.and_then(|inode| state.inodes.get_mut(&inode)) {
            inode.pending.clear();
        }
    }

    /// Removes a file directly and durably.
    pub fn lose(&self, path: &str) {
        let mut state = self.state();
        state.names.remove(path);
        state.durable_names.remove(path);
    }

    /// Creates or replaces a file, directly and durably.
    pub fn put(&self, path: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        let inode = state.next_inode;
        state.next_inode += 1;
        let bytes = Arc::new(bytes);
        state.inodes.insert(inode, Inode { now: Arc::clone(&bytes), durable: bytes, pending: Vec::new() });
        state.names.insert(path.to_owned(), inode);
        state.durable_names.insert(path.to_owned(), inode);
    }
}

impl Disk for SimDisk {
    type File = SimFile;
    type Lock = SimLock;

    fn place(&self) -> String {
        "simulated disk".to_owned()
    }

    fn open(&self, path: &str) -> Result<SimFile, DiskError> {
        match self.state().names.get(path) {
            Some(inode) => Ok(SimFile { state: Arc::clone(&self.state), inode: *inode, path: path.to_owned() }),
            None => Err(error("open", path, DiskErrorKind::NotFound, "no such file")),
        }
    }

    fn create(&self, path: &str) -> Result<SimFile, DiskError> {
        let mut state = self.state();
        let inode = state.next_inode;
        state.change_names("create", NameChange::Create { path: path.to_owned(), inode })?;
        state.next_inode += 1;
        state.inodes.insert(inode, Inode::default());
        Ok(SimFile { state: Arc::clone(&self.state), inode, path: path.to_owned() })
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut state = self.state();
        if !state.names.contains_key(from) {
            return Err(error("rename", from, DiskErrorKind::NotFound, "no such file"));
        }
        state.change_names("rename", NameChange::Rename { from: from.to_owned(), to: to.to_owned() })
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        let mut state = self.state();
        if !state.names.contains_key(path) {
            return Ok(());
        }
        state.change_names("remove", NameChange::Remove { path: path.to_owned() })
    }

    fn size_of(&self, path: &str) -> Result<u64, DiskError> {
        self.open(path)?.size()
    }

    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        let state = self.state();
        let inside = state.names.keys().filter(|path| folder_of(path) == dir);
        Ok(inside.map(|path| path.rsplit('/').next().unwrap_or(path).to_owned()).collect())
    }

    fn make_dir(&self, _dir: &str) -> Result<(), DiskError> {
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        let mut state = self.state();
        state.attempt(Operation::SyncDir, "sync", dir)?;
        let pending = std::mem::take(&mut state.pending_names);
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            pending.into_iter().partition(|change| folder_of(change.path()) == dir);
        for change in here {
            change.apply(&mut state.durable_names);
        }
        state.pending_names = elsewhere;
        state.forget_nameless();
        Ok(())
    }

    fn lock(&self, path: &str) -> Result<Option<SimLock>, DiskError> {
        let taken = self.state().locked.insert(path.to_owned());
        Ok(taken.then(|| SimLock { state: Arc::clone(&self.state), path: path.to_owned() }))
    }
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.locked.remove(&self.path);
    }
}

impl SimFile {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl File for SimFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let mut state = self.state();
        state.attempt(Operation::Read, "read", &self.path)?;
        let bytes = &state.inode(self.inode, "read", &self.path)?.now;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(buffer.len());
        match bytes.get(start..end) {
            Some(found) => buffer.copy_from_slice(found),
            None => return Err(error("read", &self.path, DiskErrorKind::Short, "the file ends before that")),
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        let mut state = self.state();
        let offset = match state.count(Operation::Write) {
            Some(Injection::Fail { .. } | Injection::Die { .. }) => {
                return Err(error("write", &self.path, DiskErrorKind::Io, "injected I/O error"));
            }
            Some(Injection::Misdirect { by, .. }) => offset + by * SECTOR as u64,
            _ => offset,
        };
        let size = state.inode(self.inode, "write", &self.path)?.now.len() as u64;
        let growth = (offset + data.len() as u64).saturating_sub(size);
        let free = state.free_for(&self.path);
        let fits = growth <= free;
        // A full disk writes the part that fits.
        let cut = data.len() as u64 - if fits { 0 } else { (growth - free).min(data.len() as u64) };
        let data = data[..usize::try_from(cut).expect("it is within the data")].to_vec();
        let inode = state.inode(self.inode, "write", &self.path)?;
        overwrite(Arc::make_mut(&mut inode.now), offset, &data);
        inode.pending.push(Arc::new(Change::Write { offset, data }));
        if fits { Ok(()) } else { Err(error("write", &self.path, DiskErrorKind::NoSpace, "no space left")) }
    }

    fn set_size(&mut self, bytes: u64) -> Result<(), DiskError> {
        let mut state = self.state();
        state.attempt(Operation::Write, "resize", &self.path)?;
        let size = state.inode(self.inode, "resize", &self.path)?.now.len() as u64;
        if bytes.saturating_sub(size) > state.free_for(&self.path) {
            return Err(error("resize", &self.path, DiskErrorKind::NoSpace, "no space left"));
        }
        let bytes = usize::try_from(bytes).expect("a simulated file fits into memory");
        let inode = state.inode(self.inode, "resize", &self.path)?;
        Arc::make_mut(&mut inode.now).resize(bytes, 0);
        inode.pending.push(Arc::new(Change::Resize { bytes }));
        Ok(())
    }

    fn sync_data(&mut self) -> Result<(), DiskError> {
        let mut state = self.state();
        match state.count(Operation::Sync) {
            Some(Injection::Fail { .. } | Injection::Die { .. }) => {
                if state.forgets && !state.dead {
                    state.inode(self.inode, "sync", &self.path)?.pending.clear();
                }
                return Err(error("sync", &self.path, DiskErrorKind::Io, "injected I/O error"));
            }
            Some(Injection::Lie { .. }) => return Ok(()),
            _ if state.lies => return Ok(()),
            _ => {}
        }
        let inode = state.inode(self.inode, "sync", &self.path)?;
        for change in inode.pending.drain(..) {
            match &*change {
                // In one piece, since no sector of it is lost.
                Change::Write { offset, data } => overwrite(Arc::make_mut(&mut inode.durable), *offset, data),
                resize @ Change::Resize { .. } => resize.apply(&mut inode.durable, |_| true),
            }
        }
        Ok(())
    }

    fn renamed(&mut self, path: &str) {
        path.clone_into(&mut self.path);
    }

    fn size(&self) -> Result<u64, DiskError> {
        Ok(self.state().inode(self.inode, "measure", &self.path)?.now.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_on_a_disk_of_its_own_has_room_when_the_rest_is_full() {
        let disk = SimDisk::new();
        let [mut log, mut state] = ["log/1", "state"].map(|path| disk.create(path).expect("created"));
        disk.set_apart(Some("log"));
        log.write_at(0, &[1; 100]).expect("there is no limit");
        assert_eq!(disk.used(), 0, "it does not count");
        disk.set_capacity(Some(10));
        log.write_at(100, &[1; 100]).expect("its own disk has room");
        log.set_size(1_000).expect("its own disk has room");
        assert_eq!(state.write_at(0, &[1; 11]).map_err(|error| error.kind), Err(DiskErrorKind::NoSpace));
        disk.set_apart(None);
        assert!(disk.used() > 1_000 && disk.free() == 0, "now they share the disk");
    }

    #[test]
    fn a_planned_fault_is_cancelled_once_and_only_those_of_its_kind() {
        let disk = SimDisk::new();
        let mut file = disk.create("file").expect("created");
        file.write_at(0, b"bytes").expect("written");
        for operation in [Operation::Read, Operation::Sync] {
            disk.inject(Injection::Fail { operation, skip: 0 });
        }
        assert!(disk.cancel(Operation::Read) && !disk.cancel(Operation::Read));
        file.read_at(0, &mut [0; 5]).expect("it does not fail any more");
        file.sync_data().expect_err("this still fails");
        assert!(!disk.cancel(Operation::Sync), "it has happened");
    }
}
