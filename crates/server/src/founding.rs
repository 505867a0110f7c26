//! The ids of a founding member and of its cluster, which every founder derives alike, as in etcd.

use bowline_node::raft::NodeId;
use sha1::{Digest, Sha1};

/// The id of a founding member: the first eight bytes of the SHA-1 hash of its peer addresses, sorted, and the
/// cluster's token. Never 0.
#[must_use]
pub fn member_id(token: &str, peer_urls: &[String]) -> NodeId {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    NodeId(first_eight(Sha1::new().chain_update(urls.concat()).chain_update(token)))
}

/// The id of a cluster: the first eight bytes of the SHA-1 hash of its founding members' ids, sorted. Never 0.
#[must_use]
pub fn cluster_id(founders: impl IntoIterator<Item = NodeId>) -> u64 {
    let mut ids: Vec<u64> = founders.into_iter().map(|NodeId(id)| id).collect();
    ids.sort_unstable();
    first_eight(ids.into_iter().fold(Sha1::new(), |hash, id| hash.chain_update(id.to_be_bytes())))
}

fn first_eight(hash: Sha1) -> u64 {
    let hash = hash.finalize();
    let (first, _) = hash.split_first_chunk().expect("a SHA-1 hash has 20 bytes");
    // 0 means "no member" in the protocols.
    u64::from_be_bytes(*first).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What etcd 3.4.23 answers when it is started without flags.
    #[test]
    fn the_ids_are_those_of_etcd() {
        let member = member_id("etcd-cluster", &["http://localhost:2380".to_owned()]);
        assert_eq!(member, NodeId(0x8e9e_05c5_2164_694d));
        assert_eq!(cluster_id([member]), 0xcdf8_1819_4e3a_8c32);
    }

    #[test]
    fn the_order_of_addresses_and_members_does_not_matter() {
        let urls = |urls: [&str; 2]| urls.map(str::to_owned);
        let one = member_id("t", &urls(["http://a:1", "http://b:1"]));
        assert_eq!(one, member_id("t", &urls(["http://b:1", "http://a:1"])));
        assert_ne!(one, member_id("u", &urls(["http://a:1", "http://b:1"])));
        assert_eq!(cluster_id([NodeId(1), NodeId(2)]), cluster_id([NodeId(2), NodeId(1)]));
    }
}
