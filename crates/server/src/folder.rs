//! A member's data folder, which is created at the first start and opened at every later one.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;

use bowline_kv::store::{EngineError, RestoreError};
use bowline_member::{KvMachine, StateFiles};
use bowline_node::raft::{Group, Membership, NodeId, Payload, Recovered, SnapshotHeader, Write};
use bowline_storage::{
    ClusterId, Disk as _, DiskError, Identity, Log, LogError, OpenError, Opened, Options, RealDisk, Recovery,
    SnapshotError, Snapshots, SpareJob, Suspicion,
};
use tracing::{error, info, warn};

use crate::config::ServerConfig;
use crate::join::{self, JoinError};
use crate::paste::quote;
use crate::peer::hex;
use crate::random::random;
use crate::replica::{LogStore, State, StoreError};
use crate::server::Disk;

/// Size of a segment of the log, in bytes. Two segments are written in full when the folder is created.
const SEGMENT_BYTES: u64 = 8 << 20;

/// Maximum size of the cache of a state's file in memory, in bytes.
const CACHE_BYTES: usize = 32 << 20;

/// Pause before the next attempt while the disk is full, or while the system lacks descriptors, memory or threads.
const PAUSE: Duration = Duration::from_millis(250);

/// Why a data folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It can't be opened or created.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its snapshot can't be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The state can't be restored from the snapshot.
    #[error("can't restore the state: {0}")]
    Restore(#[from] RestoreError),
    /// The file of the state can't be created.
    #[error(transparent)]
    State(#[from] EngineError),
    /// The system refused a call.
    #[error("{folder}: {why}")]
    Refused {
        /// The folder.
        folder: String,
        /// Its error.
        why: std::io::Error,
    },
    /// Acknowledged writes may be missing, and no other member has them.
    #[error(
        "the data in {folder} is damaged or missing after index {}: acknowledged writes may be lost, and no other \
         member has them; restore the folder from a copy",
        suspicion.valid_up_to.index
    )]
    Suspect {
        /// The folder.
        folder: String,
        /// Which entries may be missing.
        suspicion: Suspicion,
    },
    /// A new member can't join the cluster.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The cluster has a version that this program does not speak.
    #[error("{folder}: {why}")]
    TooOld {
        /// The folder.
        folder: String,
        /// What to do.
        why: String,
    },
}

/// The options of a member's log.
pub(crate) fn log_options() -> Options {
    Options { segment_bytes: SEGMENT_BYTES, ..Options::default() }
}

/// Opens the data folder. If it is empty, creates it for a founding member or for one that joins. Logs unusual findings.
///
/// # Errors
/// See [`FolderError`].
pub fn open(config: &ServerConfig) -> Result<Disk<FolderLog>, FolderError> {
    let disk = RealDisk::new(&config.data_dir)
        .with_notice(|error| error!(%error, "a call to the system failed; trying again"));
    let options = log_options();
    let founder = (ClusterId(config.cluster_id()), config.id);
    let mut known: BTreeMap<NodeId, String> =
        config.initial_cluster.iter().map(|(id, founder)| (*id, founder.url.authority().to_owned())).collect();
    let (cluster, id) = match is_empty(&config.data_dir) {
        true if config.may_found => {
            let founders = Membership::simple(Group::of_voters(known.keys().copied()));
            make(&disk, founder, Some(founders), &options)?;
            founder
        }
        // There is nobody to join.
        true if known.len() == 1 => founder,
        true => {
            let joined = join::find(config)?;
            make(&disk, (ClusterId(joined.cluster), joined.id), None, &options)?;
            known = joined.members;
            (ClusterId(joined.cluster), joined.id)
        }
        // Members have come and gone since the cluster was founded, so the folder says which one this is.
        false if !config.may_found => match bowline_storage::identity(&disk)? {
            Some(identity) => (identity.cluster, identity.replica),
            None => founder,
        },
        false => founder,
    };
    warn_of_readers(&config.data_dir);
    let mut found = None;
    let opened = bowline_storage::open_with(&disk, cluster, id, &options, |identity| {
        let place = config.data_dir.display().to_string();
        let refused = |error: EngineError| OpenError::State { place, why: error.to_string() };
        let mut files = StateFiles::new(disk.clone(), *identity, CACHE_BYTES);
        let states = files.find().map_err(refused)?;
        let kept = states.iter().map(|state| state.kept()).collect();
        found = Some((files, states));
        Ok(kept)
    })?;
    let Opened { identity, recovery, log, snapshots } = opened;
    for finding in &recovery.findings {
        warn!(file = finding.file, severity = ?finding.severity, "{}", finding.what);
    }
    if let Some(suspicion) = recovery.suspect {
        if is_alone(&recovery.recovered, id).unwrap_or(config.initial_cluster.len() == 1) {
            return Err(FolderError::Suspect { folder: config.data_dir.display().to_string(), suspicion });
        }
        warn!(
            index = suspicion.valid_up_to.index.0,
            "acknowledged entries after this index may be missing: this member neither votes nor leads until a \
             leader has sent them again"
        );
    }
    let (mut files, states) = found.expect("an opened folder has an identity, with which its states were looked for");
    let machine = match recovery.kept {
        Some(chosen) => files.choose(states, chosen).map_err(SnapshotError::from)?,
        None => {
            drop(states);
            make_state(&mut files, &snapshots, &recovery)?
        }
    };
    let too_old = |why| FolderError::TooOld { folder: config.data_dir.display().to_string(), why };
    machine.check_version(config.protocol.version).map_err(too_old)?;
    // Snapshots that an earlier run wrote for followers are of no use, nor is one that the state was restored from.
    for position in snapshots.list().map_err(SnapshotError::from)? {
        snapshots.remove(position).map_err(SnapshotError::from)?;
    }
    let arriving = snapshots.find_arriving().map_err(SnapshotError::from)?;
    if machine.members().is_empty() && recovery.recovered.snapshot.is_none() && !known.contains_key(&id) {
        // It joined, and its state is still in the log alone.
        known = join::from_log(&recovery.recovered.entries);
        if known.is_empty() {
            // It was stopped before it had heard from a leader.
            known = join::find_again(config, cluster.0)?;
        }
    }
    let Identity { cluster: ClusterId(cluster), replica, incarnation } = identity;
    Ok(Disk {
        identity: crate::peer::Identity { cluster, replica, incarnation },
        known,
        recovered: recovery.recovered,
        log: FolderLog { log, spare: None, refused: false },
        state: State { machine, files, snapshots, arriving },
    })
}

fn make(
    disk: &RealDisk,
    (cluster, replica): (ClusterId, NodeId),
    founders: Option<Membership>,
    options: &Options,
) -> Result<(), OpenError> {
    let identity = Identity { cluster, replica, incarnation: random() };
    bowline_storage::create(disk, &identity, founders, options)?;
    info!(folder = %disk.place(), member = %hex(replica), "created the data folder");
    Ok(())
}

/// Whether a member is the only voter; `None` if its log does not tell.
fn is_alone(recovered: &Recovered, id: NodeId) -> Option<bool> {
    let in_log = recovered.entries.iter().rev().find_map(|entry| match &entry.payload {
        Payload::Membership(membership) => Some(membership),
        _ => None,
    });
    let known = in_log.or(recovered.snapshot.as_ref().map(|snapshot| &snapshot.membership));
    known.map(|membership| membership.voters().iter().eq([&id]))
}

/// Makes the state of a member that has no state file that fits its log: from a snapshot if there is one, else empty.
fn make_state(
    files: &mut StateFiles<RealDisk>,
    snapshots: &Snapshots<RealDisk>,
    recovery: &Recovery,
) -> Result<KvMachine, FolderError> {
    let Some(position) = recovery.snapshot else { return Ok(files.found_anew()?) };
    info!(snapshot = %position, "restoring the state from a snapshot");
    let reader = snapshots.open(position)?;
    let header = reader.header().clone();
    let state = files.restore(&header, &mut reader.into_reader())?;
    Ok(state.install().map_err(SnapshotError::from)?)
}

/// Reads whose data is in a folder; `None` if there is none. Opens and changes nothing.
///
/// # Errors
/// The folder can't be read, or what names its owner is damaged.
pub fn identity(folder: &Path) -> Result<Option<Identity>, FolderError> {
    Ok(bowline_storage::identity(&RealDisk::new(folder))?)
}

/// Whether a folder does not exist or is empty.
#[must_use]
pub fn is_empty(folder: &Path) -> bool {
    folder.read_dir().map_or(!folder.exists(), |mut entries| entries.next().is_none())
}

/// Warns if other users of the machine may read the folder.
fn warn_of_readers(folder: &Path) {
    let Ok(metadata) = folder.metadata() else { return };
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        warn!(
            "other users of this machine can read the data folder (mode {mode:03o}); to fix it: chmod -R go= {}",
            quote(folder.as_os_str())
        );
    }
}

/// The log in a folder.
pub struct FolderLog {
    log: Log<RealDisk>,
    /// The thread that prepares the next segment, if there is one.
    spare: Option<JoinHandle<Result<(), DiskError>>>,
    /// Whether the next segment can't be prepared for now: the disk is full, or the system lacks descriptors, memory or
    /// threads.
    refused: bool,
}

impl std::fmt::Debug for FolderLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FolderLog").field("stats", &self.log.stats()).finish_non_exhaustive()
    }
}

impl FolderLog {
    /// Repeats an operation until the system allows it. Nothing is lost meanwhile: the replica goes on, but sends no
    /// acknowledgement that waits for this.
    fn insist(&mut self, mut what: impl FnMut(&mut Log<RealDisk>) -> Result<(), LogError>) -> Result<(), StoreError> {
        let mut told = false;
        loop {
            match what(&mut self.log) {
                Ok(()) => {
                    if told {
                        info!("writing the log works again");
                    }
                    return Ok(());
                }
                Err(error @ LogError::Passing(_)) => {
                    if !told {
                        error!(%error, "can't write the log; trying again");
                        told = true;
                    }
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(StoreError::Fatal(error.to_string())),
            }
        }
    }

    /// Handles the end of the thread that prepares a segment. Returns true if no segment is being prepared now.
    fn spare_is_made(&mut self) -> bool {
        let Some(spare) = self.spare.take_if(|spare| spare.is_finished()) else { return self.spare.is_none() };
        match spare.join() {
            Ok(Ok(())) => self.tell_room(true, ""),
            // Until a segment can be prepared, entries are accepted only while the current segment has room, less a
            // reserve for votes.
            Ok(Err(error)) if error.is_passing() => self.tell_room(false, &error.to_string()),
            Ok(Err(error)) => warn!(%error, "can't prepare a segment of the log"),
            Err(_) => warn!("can't prepare a segment of the log: the thread panicked"),
        }
        true
    }

    fn tell_room(&mut self, room: bool, why: &str) {
        match (std::mem::replace(&mut self.refused, !room), room) {
            (false, false) => error!(
                error = why,
                "can't prepare the next segment of the log; trying again; writes are refused once the current one is \
                 nearly full"
            ),
            (true, true) => info!("the next segment of the log is ready; no writes are refused for want of it"),
            _ => {}
        }
    }

    /// Prepares a segment in the background.
    fn start(&mut self, job: SpareJob<RealDisk>) {
        let started = std::thread::Builder::new().name("segment".to_owned()).spawn(move || job.run());
        match started {
            Ok(spare) => self.spare = Some(spare),
            Err(error) => self.tell_room(false, &format!("can't start a thread: {error}")),
        }
    }
}

impl LogStore for FolderLog {
    fn append(&mut self, write: &Write) -> Result<(), StoreError> {
        self.insist(|log| log.append(write))
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.insist(Log::sync)
    }

    /// Prepares the next segment in the background as soon as the one in reserve is in use.
    fn tend(&mut self) -> Result<(), StoreError> {
        if !self.spare_is_made() || self.log.stats().spares > 0 {
            return Ok(());
        }
        match self.log.spare_job() {
            Ok(Some(job)) => self.start(job),
            // There is a segment in reserve: compaction has freed one, or it was prepared.
            Ok(None) => self.tell_room(true, ""),
            Err(LogError::Passing(error)) => self.tell_room(false, &error.to_string()),
            Err(error) => return Err(StoreError::Fatal(error.to_string())),
        }
        Ok(())
    }

    fn compact(&mut self, snapshot: &SnapshotHeader) -> Result<(), StoreError> {
        self.insist(|log| log.compact(snapshot))
    }

    /// Usually there is room, as a missing segment is created when it is needed. While none can be prepared, only the
    /// room in the current one counts.
    fn admits(&self, bytes: u64) -> bool {
        !self.refused || self.log.admits(bytes)
    }

    fn bytes_written(&self) -> u64 {
        self.log.stats().bytes_written
    }
}
