//! Asks a member for its state over HTTP.

use std::time::Duration;

use bowline_client::{ClientFiles, ClientTls};
use tokio::runtime::Runtime;

use super::topology::{Member, Topology};
use crate::{client, page};

/// Time limit of an answer.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// Asks the members of a cluster.
pub(super) struct Probe {
    tls: Option<ClientTls>,
    runtime: Runtime,
}

impl Probe {
    pub(super) fn new(topology: &Topology) -> anyhow::Result<Probe> {
        let tls = topology.client_files().map(|[ca, cert, key]| {
            let files = ClientFiles { ca: Some(ca), identity: Some((cert, key)), ..ClientFiles::default() };
            files.load()
        });
        Ok(Probe { tls: tls.transpose()?, runtime: client::runtime()? })
    }

    /// Whether a member serves reads of the latest state.
    pub(super) fn is_ready(&self, member: &Member) -> bool {
        self.fetch(member, "/readyz").is_some_and(|answer| answer.split(' ').nth(1) == Some("200"))
    }

    /// The member that says that it leads.
    pub(super) fn leader(&self, topology: &Topology) -> Option<u64> {
        let leads = |member: &&Member| {
            self.fetch(member, "/metrics").is_some_and(|answer| answer.contains("\netcd_server_is_leader 1\n"))
        };
        topology.members.iter().find(leads).map(|member| member.id)
    }

    fn fetch(&self, member: &Member, path: &str) -> Option<String> {
        let (address, tls) = (member.client_address(), self.tls.as_ref());
        self.runtime.block_on(page::get(&address, tls, path, PATIENCE)).ok()
    }
}
