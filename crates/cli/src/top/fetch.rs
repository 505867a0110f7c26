//! Asks members for their state: `Status` and `MemberList` over gRPC, and the page `/metrics`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use pb::cluster_client::ClusterClient;
use pb::maintenance_client::MaintenanceClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use super::figures::{Answer, Sample, Told};
use super::metrics::Metrics;

/// Largest page that is read, in bytes.
const MAX_PAGE: u64 = 16 << 20;

/// Reads the state of a cluster again and again.
#[derive(Debug)]
pub(super) struct Reader {
    endpoints: Vec<String>,
    /// Connections that are kept, by their addresses.
    channels: BTreeMap<String, Channel>,
    began: Instant,
    /// Time limit of each member.
    patience: Duration,
}

impl Reader {
    /// A reader that begins with these endpoints, such as `http://127.0.0.1:2379`.
    pub(super) fn new(endpoints: Vec<String>, patience: Duration) -> Reader {
        Reader { endpoints, channels: BTreeMap::new(), began: Instant::now(), patience }
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
            tasks.spawn(async move {
                let told = match channel {
                    Err(why) => Err(why),
                    Ok(channel) => {
                        timeout(patience, ask(channel, &address)).await.unwrap_or(Err("no answer".to_owned()))
                    }
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
        let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|error| format!("{address}: {error}"))?;
        let channel = endpoint.connect_timeout(self.patience).connect_lazy();
        self.channels.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }
}

async fn ask(channel: Channel, address: &str) -> Result<Told, String> {
    let (mut maintenance, mut cluster) = (MaintenanceClient::new(channel.clone()), ClusterClient::new(channel));
    let list = pb::MemberListRequest { linearizable: false };
    let (status, members, page) =
        tokio::join!(maintenance.status(pb::StatusRequest {}), cluster.member_list(list), page(address));
    let status = status.map_err(|status| bowline_client::reason(&status))?.into_inner();
    // A learner refuses to list the members, and a firewall may hide the page.
    let members = members.map(|list| list.into_inner().members).unwrap_or_default();
    Ok(Told { status, members, metrics: page.map(|page| Metrics::parse(&page)).unwrap_or_default() })
}

/// The page `/metrics` of a member.
async fn page(address: &str) -> std::io::Result<String> {
    let authority = address.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(authority).await?;
    // HTTP/1.0, so that the body comes as a whole.
    stream.write_all(format!("GET /metrics HTTP/1.0\r\nHost: {authority}\r\n\r\n").as_bytes()).await?;
    let mut page = Vec::new();
    stream.take(MAX_PAGE).read_to_end(&mut page).await?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}
