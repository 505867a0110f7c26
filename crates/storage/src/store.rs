//! A replica's folder as a whole: it is made once, and opened at every start.

use std::sync::Arc;

use bowline_raft::{Index, Membership, NodeId, Position, Recovered, SnapshotHeader, Term};

use crate::disk::{Disk, DiskError};
use crate::hard_state::{self, HARD_STATE_FILE, Slot};
use crate::identity::{self, Binding, ClusterId, IDENTITY_FILE, Identity};
use crate::log::{Log, Options};
use crate::recovery::{self, Finding, Severity};
use crate::segments::LOG_DIR;
use crate::snapshot::{SNAPSHOT_DIR, SnapshotError, SnapshotWriter, Snapshots};
use crate::state::{State, Suspicion};

const LOCK_FILE: &str = "lock";
/// Exists while a folder is being made.
const UNFINISHED_FILE: &str = "unfinished";

/// Why a folder is not made or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// There is no data where a known member's should be (D13).
    #[error(
        "{place} holds no data of member {:x} of cluster {cluster}: if the data is elsewhere, point --data-dir there; if \
         it is lost, replace the member: bowline join --replace {:x}; it may have voted or acknowledged entries, so it \
         must not start without them",
        replica.0, replica.0
    )]
    Missing {
        /// The folder.
        place: String,
        /// The cluster that was expected.
        cluster: ClusterId,
        /// The replica that was expected.
        replica: NodeId,
    },
    /// The folder is somebody else's (D15).
    #[error(
        "{place} belongs to {found}, not to member {:x} of cluster {cluster}: check --data-dir, --name, --id, \
         --initial-cluster and --cluster-token",
        replica.0
    )]
    Foreign {
        /// The folder.
        place: String,
        /// Whose it is.
        found: Identity,
        /// The cluster that was expected.
        cluster: ClusterId,
        /// The replica that was expected.
        replica: NodeId,
    },
    /// There is data where a new folder was to be made.
    #[error("{place} already holds the data of {found}: start that member instead, or choose an empty folder")]
    AlreadyThere {
        /// The folder.
        place: String,
        /// Whose it is.
        found: Identity,
    },
    /// There is data, but no identity.
    #[error(
        "{place} holds data, but no file that says which member it belongs to: nothing was changed; restore the file \
         `identity` from a copy, or choose an empty folder if the member is new"
    )]
    Unclaimed {
        /// The folder.
        place: String,
    },
    /// Both copies of the identity are unreadable.
    #[error(
        "the identity in {place} is damaged beyond repair, so nothing in the folder can be trusted: restore the folder \
         from a copy"
    )]
    IdentityDamaged {
        /// The folder.
        place: String,
    },
    /// Another version of this program wrote it.
    #[error(
        "{place} is of format {version}, this program reads format {ours}: start it with the program that wrote it"
    )]
    OtherVersion {
        /// The folder.
        place: String,
        /// Its version.
        version: u32,
        /// What this program reads.
        ours: u32,
    },
    /// Another process has it open (D16).
    #[error("{place} is in use by another process: stop that one first, or choose another folder")]
    InUse {
        /// The folder.
        place: String,
    },
    /// Term and vote can't be read from either copy (D6).
    #[error(
        "term and vote in {place} are damaged in the log and in their copy: the member could vote twice in a term; \
         restore the folder from a copy"
    )]
    HardStateLost {
        /// The folder.
        place: String,
    },
    /// No segment of the log has a readable beginning.
    #[error("the log in {place} is missing or unreadable from its beginning: restore the folder from a copy")]
    LogLost {
        /// The folder.
        place: String,
    },
    /// A state kept by the host can't be read or written now. It may be undamaged: start again later.
    #[error("the state in {place} can't be used now: {why}")]
    State {
        /// The folder.
        place: String,
        /// The engine's message.
        why: String,
    },
    /// An option is out of range.
    #[error("{0}")]
    Options(String),
    /// The disk refused. If it is full ([`DiskError::is_passing`]), make room and start again.
    #[error("{0}")]
    Disk(#[from] DiskError),
}

/// Everything that a replica starts with.
#[derive(Debug)]
pub struct Recovery {
    /// For the consensus core: term, vote, the snapshot to start from and the log after it.
    pub recovered: Recovered,
    /// The snapshot file that belongs to it, verified to its end; `None`: the
    /// state machine starts empty, or with a state kept by the host.
    pub snapshot: Option<Position>,
    /// The number of the host's state that the state machine starts with; the others are useless.
    pub kept: Option<usize>,
    /// Acknowledged entries may be missing. Until the peers have replaced them, and the log has
    /// `Write::Repaired`, the replica must neither lead nor vote, nor count towards a commit of entries it may lack.
    pub suspect: Option<Suspicion>,
    /// Everything unusual that was found, for people.
    pub findings: Vec<Finding>,
}

/// A durable state of the state machine that the host keeps itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptState {
    /// The last entry that it contains.
    pub applied: Index,
    /// Its position and membership, if it has them: needed if the log is lost before that index.
    pub header: Option<SnapshotHeader>,
}

/// An open folder.
pub struct Opened<D: Disk> {
    /// Whose it is.
    pub identity: Identity,
    /// What was found.
    pub recovery: Recovery,
    /// The log, ready for writes.
    pub log: Log<D>,
    /// The snapshot files.
    pub snapshots: Snapshots<D>,
}

/// Makes the folder of a new member, durably. `founders` are the members that all founding members agree on;
/// `None` if the member joins an existing cluster and learns everything from its leader. A folder whose
/// creation was interrupted is made again.
///
/// # Errors
/// There is data already, or the disk refuses.
pub fn create<D: Disk>(
    disk: &D,
    identity: &Identity,
    founders: Option<Membership>,
    options: &Options,
) -> Result<(), OpenError> {
    let base = founders.map(|membership| SnapshotHeader { position: Position::ORIGIN, membership });
    make(disk, identity, base, options, |_| Ok(()))
}

/// As [`create`], for a founding member of a cluster whose state machine begins with a snapshot, at a position after the
/// origin. All founding members must begin with the same one. `write` adds its data.
///
/// # Errors
/// There is data already, the disk refuses, or `write` fails: then the folder is incomplete, and can't be opened.
pub fn create_with_snapshot<D: Disk, E: From<OpenError>>(
    disk: &D,
    identity: &Identity,
    header: &SnapshotHeader,
    options: &Options,
    write: impl FnOnce(&mut SnapshotWriter<D>) -> Result<(), E>,
) -> Result<(), E> {
    make(disk, identity, Some(header.clone()), options, |snapshots| {
        let failed = |error: SnapshotError| E::from(error.into_disk_error().into());
        let mut writer = snapshots.write(header).map_err(failed)?;
        write(&mut writer)?;
        writer.finish().map_err(failed)
    })
}

/// Makes the folder of a new member whose log starts after `base`. `add` adds what belongs to that.
fn make<D: Disk, E: From<OpenError>>(
    disk: &D,
    identity: &Identity,
    base: Option<SnapshotHeader>,
    options: &Options,
    add: impl FnOnce(&Snapshots<D>) -> Result<(), E>,
) -> Result<(), E> {
    let lock = begin(disk, options)?;
    let refused = |error: DiskError| OpenError::from(error);
    let binding = Binding::of(identity);
    let state = State::founding(base);
    let empty = Slot { version: 0, hard_state: state.hard_state, log_version: 0, extent: None };
    hard_state::write_both(disk, binding, &empty).map_err(refused)?;
    crate::log::found(disk, identity, &state, options).map_err(refused)?;
    add(&Snapshots::new(disk.clone(), binding, Arc::new(lock)).map_err(refused)?)?;
    // Last, so that a folder with an identity is complete.
    identity::write(disk, identity).map_err(refused)?;
    disk.remove(UNFINISHED_FILE).map_err(refused)?;
    Ok(disk.sync_dir("").map_err(refused)?)
}

/// Prepares an empty folder, or one whose creation was interrupted.
fn begin<D: Disk>(disk: &D, options: &Options) -> Result<D::Lock, OpenError> {
    options.validate().map_err(OpenError::Options)?;
    disk.make_dir("")?;
    let lock = lock(disk)?;
    if let Some(found) = identity::read(disk)? {
        return Err(OpenError::AlreadyThere { place: disk.place(), found: found.identity });
    }
    let names = disk.list("")?;
    let is_there = |file: &str| names.iter().any(|name| name == file);
    if !is_there(UNFINISHED_FILE) {
        if is_there(HARD_STATE_FILE) || !disk.list(LOG_DIR)?.is_empty() || !disk.list(SNAPSHOT_DIR)?.is_empty() {
            return Err(OpenError::Unclaimed { place: disk.place() });
        }
        disk.create(UNFINISHED_FILE)?;
        disk.sync_dir("")?;
    }
    for dir in [LOG_DIR, SNAPSHOT_DIR] {
        disk.make_dir(dir)?;
        // Remove the files of an interrupted attempt.
        for name in disk.list(dir)? {
            disk.remove(&format!("{dir}/{name}"))?;
        }
        disk.sync_dir(dir)?;
    }
    Ok(lock)
}

/// Reads whose folder it is, without locking or changing it; `None` if it says nothing.
///
/// # Errors
/// The identity is unreadable, or the disk refuses.
pub fn identity<D: Disk>(disk: &D) -> Result<Option<Identity>, OpenError> {
    Ok(identity::read(disk)?.map(|found| found.identity))
}

fn lock<D: Disk>(disk: &D) -> Result<D::Lock, OpenError> {
    disk.lock(LOCK_FILE)?.ok_or_else(|| OpenError::InUse { place: disk.place() })
}

/// Opens the folder of a member that has run before.
///
/// # Errors
/// See [`OpenError`]. Nothing was changed then, except that repairs may have begun when the disk refused.
pub fn open<D: Disk>(disk: &D, cluster: ClusterId, replica: NodeId, options: &Options) -> Result<Opened<D>, OpenError> {
    open_with(disk, cluster, replica, options, |_| Ok(Vec::new()))
}

/// As [`open`], for a host that keeps the state machine's state itself: `states` finds its states, after the
/// folder was locked. The first one that fits the log is used: it ends at an entry of the log, or where the log
/// begins. If a state can't be read for now, `states` must fail, not leave it out: without it, the log might be given up.
///
/// # Errors
/// As [`open`], or the error of `states`.
pub fn open_with<D: Disk>(
    disk: &D,
    cluster: ClusterId,
    replica: NodeId,
    options: &Options,
    states: impl FnOnce(&Identity) -> Result<Vec<KeptState>, OpenError>,
) -> Result<Opened<D>, OpenError> {
    options.validate().map_err(OpenError::Options)?;
    let missing = || OpenError::Missing { place: disk.place(), cluster, replica };
    if disk.list("")?.iter().all(|name| name != IDENTITY_FILE) {
        return Err(missing());
    }
    let lock = Arc::new(lock(disk)?);
    let found = identity::read(disk)?.ok_or_else(missing)?;
    let identity = found.identity;
    if (identity.cluster, identity.replica) != (cluster, replica) {
        return Err(OpenError::Foreign { place: disk.place(), found: identity, cluster, replica });
    }
    disk.remove(UNFINISHED_FILE)?;
    let mut findings = Vec::new();
    if found.needs_repair {
        identity::write(disk, &identity)?;
        findings.push(Finding::new(IDENTITY_FILE, 0..1, Severity::Repaired, "one of two copies is unreadable"));
    }
    let binding = Binding::of(&identity);
    let replay = recovery::read_log(disk, binding, &mut findings)?;
    let snapshots = Snapshots::new(disk.clone(), binding, Arc::clone(&lock))?;
    let (recovery, start) = choose_snapshot(&snapshots, &states(&identity)?, replay, findings)?;
    let log = Log::start(disk, lock, identity, options.clone(), start)?;
    Ok(Opened { identity, recovery, log, snapshots })
}

/// If a part of the log is lost and a whole snapshot reaches beyond the rest, starts from that snapshot. This is safe,
/// as stored snapshots hold only committed entries.
fn save_by_snapshot<D: Disk>(
    snapshots: &Snapshots<D>,
    kept: &[KeptState],
    replay: &mut recovery::Replay,
) -> Result<(), OpenError> {
    let Some(lost) = replay.lost else { return Ok(()) };
    for KeptState { applied, header } in kept {
        let Some(header) = header.as_ref().filter(|header| header.position.index == *applied) else { continue };
        if *applied > lost.valid_up_to.index && header.position.term <= replay.state.hard_state.term {
            replay.start_from(header);
            return Ok(());
        }
    }
    for position in snapshots.list()?.into_iter().rev() {
        if position.index <= lost.valid_up_to.index || position.term > replay.state.hard_state.term {
            continue;
        }
        match snapshots.verify(position) {
            Ok(header) => {
                replay.start_from(&header);
                return Ok(());
            }
            // The damaged snapshot is lost too, but its name says how far it reached.
            Err(error) if error.is_damage() => replay.has_reached(position.index),
            Err(error) => return Err(error.into_disk_error().into()),
        }
    }
    Ok(())
}

/// Finds the state that the replica starts from: a kept state that fits the log, or else the newest whole snapshot
/// that does.
fn choose_snapshot<D: Disk>(
    snapshots: &Snapshots<D>,
    kept: &[KeptState],
    mut replay: recovery::Replay,
    mut findings: Vec<Finding>,
) -> Result<(Recovery, recovery::Replay), OpenError> {
    save_by_snapshot(snapshots, kept, &mut replay)?;
    if replay.lost.is_none() {
        findings.iter_mut().for_each(|finding| finding.severity = finding.severity.min(Severity::Repaired));
    }
    let base = replay.state.base.clone();
    let base_position = base.as_ref().map_or(Position::ORIGIN, |base| base.position);
    // A leader's snapshot that the log does not know may end where the log has an entry that was never committed.
    let agrees = |kept: &KeptState, term: Term| {
        let end = kept.header.as_ref().filter(|header| header.position.index == kept.applied);
        end.is_none_or(|header| header.position.term == term)
    };
    let reaches = |kept: &KeptState| {
        kept.applied == base_position.index || replay.term_at(kept.applied).is_some_and(|term| agrees(kept, term))
    };
    if let Some(number) = kept.iter().position(reaches) {
        // The replica keeps the log from its base on, for followers.
        let recovery = recovery_of(&replay, base, kept[number].applied, findings);
        return Ok((Recovery { kept: Some(number), ..recovery }, replay));
    }
    let mut chosen: Option<SnapshotHeader> = None;
    for position in snapshots.list()?.into_iter().rev() {
        let held = position == base_position || replay.term_at(position.index) == Some(position.term);
        if chosen.is_some() || position.index < base_position.index || !held {
            continue;
        }
        match snapshots.verify(position) {
            Ok(header) => chosen = Some(header),
            Err(error) if error.is_damage() => {
                let path = crate::snapshot::snapshot_path(position);
                // If the log doesn't begin after it, nothing is lost.
                let severity = if position == base_position { Severity::Suspect } else { Severity::Repaired };
                findings.push(Finding::new(&path, 0..0, severity, "the snapshot is damaged"));
            }
            Err(error) => return Err(error.into_disk_error().into()),
        }
    }
    let position = chosen.as_ref().map(|header| header.position);
    if chosen.is_none() && base_position != Position::ORIGIN {
        // Without the state up to the base, the entries after it are useless.
        if !findings.iter().any(|finding| finding.severity == Severity::Suspect) {
            findings.push(Finding::new(SNAPSHOT_DIR, 0..0, Severity::Suspect, "the snapshot under the log is missing"));
        }
        replay.lose_everything();
        chosen = None;
    } else if chosen.is_none() {
        chosen = base;
    }
    let applied = chosen.as_ref().map_or(Index(0), |header| header.position.index);
    let recovery = recovery_of(&replay, chosen, applied, findings);
    Ok((Recovery { snapshot: position, ..recovery }, replay))
}

/// The recovery of a replica whose log starts after `start`, and whose state machine contains everything up to
/// `applied`.
fn recovery_of(
    replay: &recovery::Replay,
    start: Option<SnapshotHeader>,
    applied: Index,
    findings: Vec<Finding>,
) -> Recovery {
    let (suspect, hard_state) = (replay.suspicion(), replay.state.hard_state);
    let first = start.as_ref().map_or(Index(0), |header| header.position.index);
    let recovered = Recovered {
        hard_state,
        entries: replay.entries.iter().filter(|entry| entry.index > first).cloned().collect(),
        snapshot: start,
        applied,
        suspect: suspect.map(|suspicion| suspicion.last_possible_position(hard_state.term)),
    };
    Recovery { recovered, snapshot: None, kept: None, suspect, findings }
}
