//! A member's data folder, which is created at the first start and opened at every later one.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bowline_kv::store::{EngineError, RestoreError};
use bowline_member::OpenedMember;
use bowline_node::raft::{Group, Membership, NodeId, Payload, Recovered};
use bowline_storage::{
    ClusterId, Disk as _, Identity, OpenError, Options, RealDisk, Recovery, SnapshotError, Suspicion,
};
use tracing::{error, info, warn};

use crate::config::ServerConfig;
use crate::join::{self, JoinError};
use crate::paste::quote;
use crate::peer::hex;
use crate::random::random;
use crate::server::Disk;

/// Size of a segment of the log, in bytes. Two segments are written in full when the folder is created.
const SEGMENT_BYTES: u64 = 8 << 20;

/// Maximum size of the cache of a state's file in memory, in bytes.
const CACHE_BYTES: usize = 32 << 20;

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
pub fn open(config: &ServerConfig) -> Result<Disk<RealDisk>, FolderError> {
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
    let place = || config.data_dir.display().to_string();
    let accept = |recovery: &Recovery| {
        for finding in &recovery.findings {
            warn!(file = finding.file, severity = ?finding.severity, "{}", finding.what);
        }
        let Some(suspicion) = recovery.suspect else { return Ok(()) };
        if is_alone(&recovery.recovered, id).unwrap_or(config.initial_cluster.len() == 1) {
            return Err(FolderError::Suspect { folder: place(), suspicion });
        }
        warn!(
            index = suspicion.valid_up_to.index.0,
            "acknowledged entries after this index may be missing: this member neither votes nor leads until a \
             leader has sent them again"
        );
        Ok(())
    };
    let opened = bowline_member::open(&disk, (cluster, id), &options, CACHE_BYTES, accept)?;
    let OpenedMember { identity, recovery, log, state } = opened;
    state.machine.check_version(config.protocol.version).map_err(|why| FolderError::TooOld { folder: place(), why })?;
    if state.machine.members().is_empty() && recovery.recovered.snapshot.is_none() && !known.contains_key(&id) {
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
        log,
        state,
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
