//! Asks members for their state: `Status` and `MemberList` over gRPC, and the page `/metrics`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use bowline_client::{Channel, Client, ClientTls};
use pb::cluster_client::ClusterClient;
use pb::maintenance_client::MaintenanceClient;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::figures::{Answer, Sample, Told};
use super::metrics::Metrics;
use crate::page;

/// Reads the state of a cluster again and again.
#[derive(Debug)]
pub(super) struct Reader {
    client: Client,
    endpoints: Vec<String>,
    /// Connections that are kept, by their addresses.
    channels: BTreeMap<String, Channel>,
    began: Instant,
    /// Time limit of each member.
    patience: Duration,
}

impl Reader {
    /// A reader that begins with the endpoints of a client, and uses its TLS.
    pub(super) fn new(client: Client, patience: Duration) -> Reader {
        let endpoints = client.endpoints().map(str::to_owned).collect();
        Reader { client, endpoints, channels: BTreeMap::new(), began: Instant::now(), patience }
    }

    /// Asks all endpoints, and all members that they list.
    pub(super) async fn sample(&mut self) -> Sample {
        let mut sample = Sample { at: self.began.elapsed(), answers: self.ask(&self.endpoints.clone()).await };
        let others = sample.unasked();
        sample.answers.extend(self.ask(&others).await);
        sample
    }

    /// Asks addresses, all at the same time.
    async fn ask(&mut self, addresses: &[String]) -> Vec<Answer> {
        let mut tasks = JoinSet::new();
        for address in addresses {
            let (channel, address, patience) = (self.channel(address), address.clone(), self.patience);
            let tls = self.client.tls().cloned();
            tasks.spawn(async move {
                let told = match channel {
                    Err(why) => Err(why),
                    Ok(channel) => timeout(patience, ask(channel, &address, tls, patience))
                        .await
                        .unwrap_or(Err("no answer".to_owned())),
                };
                Answer { address, told }
            });
        }
        tasks.join_all().await
    }

    fn channel(&mut self, address: &str) -> Result<Channel, String> {
        if let Some(channel) = self.channels.get(address) {
            return Ok(channel.clone());
        }
        let channel = self.client.lazy_channel(address).map_err(|error| error.to_string())?;
        self.channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

async fn ask(channel: Channel, address: &str, tls: Option<ClientTls>, patience: Duration) -> Result<Told, String> {
    let (scheme, authority) = address.split_once("://").unwrap_or(("http", address));
    let tls = tls.as_ref().filter(|_| scheme == "https");
    let page = page::get(authority.trim_end_matches('/'), tls, "/metrics", patience);
    let (mut maintenance, mut cluster) = (MaintenanceClient::new(channel.clone()), ClusterClient::new(channel));
    let list = pb::MemberListRequest { linearizable: false };
    let (status, members, page) =
        tokio::join!(maintenance.status(pb::StatusRequest {}), cluster.member_list(list), page);
    let status = status.map_err(|status| bowline_client::reason(&status))?.into_inner();
    // A learner refuses to list the members, and a firewall may hide the page.
    let members = members.map(|list| list.into_inner().members).unwrap_or_default();
    Ok(Told { status, members, metrics: page.map(|page| Metrics::parse(&page)).unwrap_or_default() })
}
