//! Divides the process's file descriptors.
//!
//! A member without a descriptor for the next segment of its log, or for a connection to its leader, harms the cluster.
//! So its own files and its peers come first, and clients share the rest (etcd reserves 150).

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors for a member's own files: the log (its tail, the segment being prepared, both copies of the vote), the
/// state with its reserve and a rewrite, snapshots that are received and sent, the runtime, the listeners, folders that
/// are synced, the standard streams, and name lookups.
const OWN_FILES: u64 = 32;

/// Descriptors for each peer: four connections to it and four from it, twice, because old ones may still be ending.
const EACH_PEER: u64 = 16;

/// Connections to the peer port before their handshake, in a cluster with peers.
const STRANGERS: u64 = 24;

/// Descriptors that are reserved if there are plenty, as in etcd.
const COMFORTABLE: u64 = 150;

/// From this limit on, there is room for one more member than are known.
const ROOMY: u64 = 256;

/// Connections that must at least remain for clients.
const FEW: u64 = 8;

/// The division of the descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Connections of clients.
    pub(crate) clients: usize,
    /// Connections to the peer port.
    pub(crate) peers: usize,
}

/// The limit of open files is too low for a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the limit of open files is {limit}, but this member needs {needed}: raise it with ulimit -n, or LimitNOFILE= in \
     systemd"
)]
pub struct TooFew {
    /// The limit.
    limit: u64,
    /// The number needed, with a few clients.
    needed: u64,
}

/// Raises this process's soft limit of open files to the hard limit. Returns the new soft limit.
pub fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // If this fails, the present limit has to do.
    let _ = setrlimit(Resource::Nofile, raised);
    current_limit()
}

/// The soft limit of open files; `u64::MAX` if there is none.
pub(crate) fn current_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Divides `limit` descriptors. Clients get at most `wanted` connections, if given.
///
/// # Errors
/// Too few descriptors remain for clients.
pub(crate) fn share(limit: u64, peers: usize, wanted: Option<usize>) -> Result<Shares, TooFew> {
    // One more member may be added, if there is room for it.
    let peers = peers as u64 + u64::from(limit >= ROOMY);
    let strangers = if peers > 0 { STRANGERS } else { 1 };
    let own = OWN_FILES + EACH_PEER * peers + strangers;
    if limit < own + FEW {
        return Err(TooFew { limit, needed: own + FEW });
    }
    let aside = own.max(COMFORTABLE.min(limit / 2));
    let clients = usize::try_from(limit - aside).unwrap_or(usize::MAX).min(wanted.unwrap_or(usize::MAX));
    // Half of the peers' descriptors are for connections to them.
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
        assert_eq!(share(1_024, 2, None).map(|shares| shares.peers), Ok(48));
        assert_eq!(share(255, 0, None).map(|shares| shares.peers), Ok(1));
        assert_eq!(share(256, 0, None).map(|shares| shares.peers), Ok(32));
    }
}
