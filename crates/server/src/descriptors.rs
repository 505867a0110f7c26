//! Who may have how many of the process's file descriptors.
//!
//! A member that finds none for the next segment of its log, or for a connection to its leader, takes a part of the
//! cluster with it. So its own files and its peers come first, and clients share what is left (etcd keeps 150).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a member's own files take at most: the log (its tail, the segment in the making, both copies of the vote), the
/// state with its reserve and a rewrite of it, snapshots that arrive and leave, the runtime, the listeners, folders
/// that are synced, standard streams, names that are looked up.
const OWN_FILES: u64 = 32;

/// For each peer: four connections to it and four from it, twice, as old ones end in their own time.
const EACH_PEER: u64 = 16;

/// Connections to the peers' port that have not said who they are yet, where there are peers.
const STRANGERS: u64 = 24;

/// What is set aside where there are plenty, in descriptors; as etcd.
const COMFORTABLE: u64 = 150;

/// The least that clients must be left with, in connections.
const FEW: u64 = 8;

/// How the descriptors are shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Connections of clients.
    pub(crate) clients: usize,
    /// Connections from peers, and from strangers at their port.
    pub(crate) peers: usize,
}

/// The limit of open files is too low for a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the limit of open files is {limit}, but this member needs {needed}: raise it with ulimit -n, or LimitNOFILE= in \
     systemd"
)]
pub struct TooFew {
    /// What is allowed.
    limit: u64,
    /// What is needed, with a few clients.
    needed: u64,
}

/// Raises this process's soft limit of open files to the hard one. Returns the soft limit as it is then.
pub fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where it can't be raised, what there is has to do.
    let _ = setrlimit(Resource::Nofile, raised);
    current_limit()
}

/// The soft limit of open files; `u64::MAX` if there is none.
pub(crate) fn current_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Shares `limit` descriptors. Clients get at most `wanted` connections, if that is given.
///
/// # Errors
/// There are too few for any client.
pub(crate) fn share(limit: u64, peers: usize, wanted: Option<usize>) -> Result<Shares, TooFew> {
    let peers = peers as u64;
    let strangers = if peers > 0 { STRANGERS } else { 1 };
    let own = OWN_FILES + EACH_PEER * peers + strangers;
    if limit < own + FEW {
        return Err(TooFew { limit, needed: own + FEW });
    }
    let aside = own.max(COMFORTABLE.min(limit / 2));
    let clients = usize::try_from(limit - aside).unwrap_or(usize::MAX).min(wanted.unwrap_or(usize::MAX));
    // Half of what peers take are connections to them.
    let from_peers = usize::try_from(EACH_PEER / 2 * peers + strangers).unwrap_or(usize::MAX);
    Ok(Shares { clients, peers: from_peers })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_members_own_files_and_peers_come_before_clients() {
        let clients = |limit, peers| share(limit, peers, None).map(|shares| shares.clients);
        assert_eq!(clients(64, 0), Ok(31));
        assert_eq!(clients(256, 2), Ok(128));
        assert_eq!(clients(1_024, 2), Ok(874));
        assert_eq!(clients(u64::MAX, 2), Ok(usize::MAX - 150));
        assert_eq!(clients(41, 0), Ok(8));
        assert_eq!(clients(40, 0), Err(TooFew { limit: 40, needed: 41 }));
        assert_eq!(clients(95, 2), Err(TooFew { limit: 95, needed: 96 }));
        assert_eq!(share(1_024, 2, Some(5)).map(|shares| shares.clients), Ok(5));
        assert_eq!(share(1_024, 2, None).map(|shares| shares.peers), Ok(40));
    }
}
