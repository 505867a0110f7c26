//! The identity of the replica whose data a folder holds, and the checksum seeds that bind every sector to it.

use std::fmt;

use bowline_raft::NodeId;

use crate::disk::{Disk, DiskError, SECTOR, read_all, write_whole};
use crate::store::OpenError;

/// Version of all formats that this crate writes. A folder of another version is refused.
pub const FORMAT_VERSION: u32 = 1;

pub(crate) const IDENTITY_FILE: &str = "identity";
const MAGIC: &[u8; 8] = b"BOWLNID1";
/// The identity is in the file twice, each in a sector of its own.
const COPIES: usize = 2;
const LENGTH: usize = 8 + 4 + 8 + 8 + 8 + 4;

/// Names a cluster; drawn at random when it is founded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterId(pub u64);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Who a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its id in the cluster.
    pub replica: NodeId,
    /// Distinguishes the folders made for that id; drawn at random when the folder is made, so that a new folder
    /// is never taken for one that was lost.
    pub incarnation: u64,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "member {} of cluster {} (incarnation {:016x})", self.replica.0, self.cluster, self.incarnation)
    }
}

/// The seed of every checksum in a replica's folder: bytes of another replica, another cluster or an earlier
/// incarnation don't pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Binding(u32);

impl Binding {
    pub(crate) fn of(identity: &Identity) -> Binding {
        let mut seed = crc32c::crc32c(MAGIC);
        for word in [identity.cluster.0, identity.replica.0, identity.incarnation] {
            seed = crc32c::crc32c_append(seed, &word.to_le_bytes());
        }
        Binding(seed)
    }

    /// The seed for a place, which is given by some numbers. Places that differ only in their last 32 bits
    /// have different seeds; others almost certainly.
    pub(crate) fn at(self, place: &[u64]) -> u32 {
        place.iter().fold(self.0, |seed, number| crc32c::crc32c_append(seed, &number.to_le_bytes()))
    }
}

/// The identity that was found.
pub(crate) struct FoundIdentity {
    pub(crate) identity: Identity,
    /// One of the copies is damaged.
    pub(crate) needs_repair: bool,
}

fn encode(identity: &Identity) -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    sector[..8].copy_from_slice(MAGIC);
    sector[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    sector[12..20].copy_from_slice(&identity.cluster.0.to_le_bytes());
    sector[20..28].copy_from_slice(&identity.replica.0.to_le_bytes());
    sector[28..36].copy_from_slice(&identity.incarnation.to_le_bytes());
    let sum = crc32c::crc32c(&sector[..36]);
    sector[36..LENGTH].copy_from_slice(&sum.to_le_bytes());
    sector
}

/// One copy of the identity.
enum Copy {
    Good(Identity),
    OtherVersion(u32),
    Damaged,
}

fn decode(sector: &[u8]) -> Copy {
    let word = |at: usize| u64::from_le_bytes(sector[at..at + 8].try_into().expect("eight bytes"));
    let half = |at: usize| u32::from_le_bytes(sector[at..at + 4].try_into().expect("four bytes"));
    let is_whole = sector[..8] == *MAGIC && half(36) == crc32c::crc32c(&sector[..36]);
    match half(8) {
        _ if !is_whole => Copy::Damaged,
        FORMAT_VERSION if sector[LENGTH..].iter().any(|byte| *byte != 0) => Copy::Damaged,
        FORMAT_VERSION => {
            Copy::Good(Identity { cluster: ClusterId(word(12)), replica: NodeId(word(20)), incarnation: word(28) })
        }
        version => Copy::OtherVersion(version),
    }
}

/// Reads the identity; `None` if there is none.
pub(crate) fn read<D: Disk>(disk: &D) -> Result<Option<FoundIdentity>, OpenError> {
    let file = match disk.open(IDENTITY_FILE) {
        Err(error) if error.is_not_found() => return Ok(None),
        file => file?,
    };
    // A file of the wrong size is damaged, but one of its copies may still be good.
    let mut bytes = read_all(&file, IDENTITY_FILE, 64 << 10)?;
    let right_size = bytes.len() == COPIES * SECTOR;
    bytes.resize(COPIES * SECTOR, 0);
    let copies: Vec<Copy> = bytes.chunks_exact(SECTOR).map(decode).collect();
    let good: Vec<Identity> =
        copies.iter().filter_map(|copy| if let Copy::Good(identity) = copy { Some(*identity) } else { None }).collect();
    match good.as_slice() {
        [] => {}
        [identity, others @ ..] if others.iter().all(|other| other == identity) => {
            let needs_repair = good.len() < COPIES || !right_size;
            return Ok(Some(FoundIdentity { identity: *identity, needs_repair }));
        }
        _ => return Err(OpenError::IdentityDamaged { place: disk.place() }),
    }
    let version =
        copies.iter().find_map(|copy| if let Copy::OtherVersion(version) = copy { Some(*version) } else { None });
    match version {
        Some(version) => Err(OpenError::OtherVersion { place: disk.place(), version, ours: FORMAT_VERSION }),
        None => Err(OpenError::IdentityDamaged { place: disk.place() }),
    }
}

/// Writes the identity, durably: the last step of making a folder, and the repair of a damaged copy.
pub(crate) fn write<D: Disk>(disk: &D, identity: &Identity) -> Result<(), DiskError> {
    write_whole(disk, "", IDENTITY_FILE, &encode(identity).repeat(COPIES))
}
