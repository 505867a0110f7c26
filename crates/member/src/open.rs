//! Opens a member's folder: the log, the state that fits it, and the snapshots.

use bowline_kv::store::{EngineError, RestoreError};
use bowline_node::raft::NodeId;
use bowline_storage::{
    Arriving, ClusterId, Identity, Log, OpenError, Opened, Options, Recovery, SnapshotError, Snapshots, open_with,
};
use tracing::info;

use crate::disk::StateDisk;
use crate::machine::KvMachine;
use crate::state_files::StateFiles;

/// Everything that a member starts with.
pub struct OpenedMember<D: StateDisk> {
    /// Whose it is.
    pub identity: Identity,
    /// What was found.
    pub recovery: Recovery,
    /// The log, ready for writes.
    pub log: Log<D>,
    /// The state that fits the log.
    pub state: State<D>,
}

/// The state of a member, in its folder.
pub struct State<D: StateDisk> {
    /// The state.
    pub machine: KvMachine,
    /// The files of states.
    pub files: StateFiles<D>,
    /// The files of snapshots for followers: none yet.
    pub snapshots: Snapshots<D>,
    /// A snapshot that an earlier run had received in part.
    pub arriving: Option<Arriving<D>>,
}

impl<D: StateDisk> std::fmt::Debug for State<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("machine", &self.machine).finish_non_exhaustive()
    }
}

impl<D: StateDisk> std::fmt::Debug for OpenedMember<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenedMember")
            .field("identity", &self.identity)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// Opens the folder of a member of this cluster. `accept` may still refuse it, before a state is chosen and the others
/// are removed. At most `cache_bytes` of the state's file are kept in memory.
///
/// # Errors
/// The folder can't be used, or not now; or `accept` refuses it.
pub fn open<D, E>(
    disk: &D,
    (cluster, replica): (ClusterId, NodeId),
    options: &Options,
    cache_bytes: usize,
    accept: impl FnOnce(&Recovery) -> Result<(), E>,
) -> Result<OpenedMember<D>, E>
where
    D: StateDisk,
    E: From<OpenError> + From<SnapshotError> + From<RestoreError> + From<EngineError>,
{
    let mut found = None;
    let opened = open_with(disk, cluster, replica, options, |identity| {
        let refused = |error: EngineError| OpenError::State { place: disk.place(), why: error.to_string() };
        let mut files = StateFiles::new(disk.clone(), *identity, cache_bytes);
        let states = files.find().map_err(refused)?;
        let kept = states.iter().map(|state| state.kept()).collect();
        found = Some((files, states));
        Ok(kept)
    })?;
    let Opened { identity, recovery, log, snapshots } = opened;
    accept(&recovery)?;
    let (mut files, states) = found.expect("an opened folder has an identity, with which its states were looked for");
    let machine = match recovery.kept {
        Some(chosen) => files.choose(states, chosen).map_err(OpenError::from)?,
        None => {
            drop(states);
            make_state::<D, E>(&mut files, &snapshots, &recovery)?
        }
    };
    // Snapshots that an earlier run wrote for followers are of no use, nor is one that the state was restored from.
    for position in snapshots.list().map_err(SnapshotError::from)? {
        snapshots.remove(position).map_err(SnapshotError::from)?;
    }
    let arriving = snapshots.find_arriving().map_err(SnapshotError::from)?;
    let state = State { machine, files, snapshots, arriving };
    Ok(OpenedMember { identity, recovery, log, state })
}

/// Makes the state of a member that has no state file that fits its log: from a snapshot if there is one, else empty.
fn make_state<D, E>(files: &mut StateFiles<D>, snapshots: &Snapshots<D>, recovery: &Recovery) -> Result<KvMachine, E>
where
    D: StateDisk,
    E: From<OpenError> + From<SnapshotError> + From<RestoreError> + From<EngineError>,
{
    let Some(position) = recovery.snapshot else { return Ok(files.found_anew()?) };
    info!(snapshot = %position, "restoring the state from a snapshot");
    let reader = snapshots.open(position)?;
    let header = reader.header().clone();
    let state = files.restore(&header, &mut reader.into_reader())?;
    Ok(state.install().map_err(OpenError::from)?)
}
