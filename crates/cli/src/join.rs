//! `bowline join` adds this machine to a running cluster, as a new member.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bowline_api::etcdserverpb::Member;
use bowline_client::Client;
use bowline_server::config::{Layers, ServerConfig, Url};
use bowline_server::{Listeners, Server, folder};
use clap::Args;
use tracing::{info, warn};

use crate::client::{LoginArgs, TlsArgs, find, hex, peer_url};
use crate::exit::{Exit, NotDone};
use crate::serve::{ServeCommand, run_member};

const EXAMPLES: &str = "Examples:
  bowline join 10.0.0.1:2379
  bowline join 10.0.0.1:2379 --name d --data-dir /var/lib/bowline
  bowline join 10.0.0.1:2379 --replace c      c is dead: its place is taken
  bowline join 10.0.0.1:2379 --cacert ca.crt --cert d.crt --key d.key --cert-file d.crt --key-file d.key \
      --peer-cert-file d.crt --peer-key-file d.key --peer-trusted-ca-file ca.crt
  bowline join 127.0.0.1:2379 --peer 127.0.0.1:2390 --listen-client 127.0.0.1:2389

The new member is added to the cluster, receives the data, and votes when it has caught up; then it goes on like `bowline \
serve`. Run the same command again to start it again. Without --peer and --listen-client, it uses the address of this \
machine by which it reaches the cluster, with the ports 2380 (or that of --listen-peer) and 2379. All settings of `bowline \
serve` are allowed.

Exit codes: 0 stopped; 1 refused or failed; 2 bad input.";

/// Time limit of a request to the cluster.
const PATIENCE: Duration = Duration::from_secs(10);

/// The port for other members, if nothing names one.
const PEER_PORT: u16 = 2380;

/// Interval of the reports on the progress.
const REPORT: Duration = Duration::from_secs(1);

/// Adds this machine to a running cluster as a new member, and runs it.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct JoinCommand {
    /// Addresses of members for clients, separated by commas.
    #[arg(value_name = "MEMBER", value_delimiter = ',', required = true)]
    members: Vec<String>,
    /// Address at which other members can reach this one [default: this machine, with the port of --listen-peer, or
    /// 2380].
    #[arg(long, value_name = "HOST:PORT")]
    peer: Option<String>,
    /// Id or name of a member that is removed when this one votes.
    #[arg(long, value_name = "MEMBER")]
    replace: Option<String>,
    /// Receive everything, but don't vote before `bowline member promote`.
    #[arg(long, conflicts_with = "replace")]
    learner: bool,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    login: LoginArgs,
    #[command(flatten)]
    settings: ServeCommand,
}

impl JoinCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut client = self.login.credentials()?.apply(self.tls.client(&self.members, PATIENCE)?);
        let listed = runtime.block_on(client.member_list(true))?;
        let (cluster, members) = (listed.header.map_or(0, |header| header.cluster_id), listed.members);
        let replaced = match &self.replace {
            Some(named) => Some(runtime.block_on(find(&mut client, named))?),
            None => None,
        };
        let peer = self.peer()?;
        let config = self.configuration(&peer, &members)?;
        if !folder::is_empty(&config.data_dir)
            && let Some(owner) = folder::identity(&config.data_dir)?
            && owner.cluster.0 != cluster
        {
            bail!(NotDone(format!(
                "{} has the data of a member of cluster {:016x}, but {} is in cluster {cluster:016x}: give another \
                 --data-dir, or the address of a member of the first cluster",
                config.data_dir.display(),
                owner.cluster.0,
                self.members.join(",")
            )));
        }
        // First the ports: a member that can't listen must not be added.
        let listeners = Listeners::bind(&config)?;
        if folder::is_empty(&config.data_dir) {
            runtime.block_on(self.add(&mut client, &peer, &members))?;
        }
        let mut progress = Progress { client, runtime, replaced, reported: None, told: false };
        run_member(&config, self.settings.stops_at_eof(), &[], |_| Ok(listeners), |server| progress.follow(server))
    }

    /// Adds this member, unless it was added before.
    async fn add(&self, client: &mut Client, peer: &str, members: &[Member]) -> anyhow::Result<()> {
        if let Some(known) = members.iter().find(|member| member.peer_ur_ls.iter().any(|url| url == peer)) {
            if known.name.is_empty() {
                return Ok(());
            }
            bail!(NotDone(format!(
                "member {} at {peer} has started before, but its data is not here: start it with its data, or replace \
                 it: bowline join --replace {} with another --peer",
                hex(known.id),
                hex(known.id)
            )));
        }
        client.member_add(&[peer.to_owned()], self.learner).await?;
        Ok(())
    }

    /// The address of this member for others.
    fn peer(&self) -> anyhow::Result<String> {
        let (_, https) = self.settings.layers()?.uses_tls();
        match &self.peer {
            Some(text) => peer_url(text, https).map_err(|error| anyhow::anyhow!("--peer: {error}")),
            None => {
                let layers = self.settings.layers()?;
                // What is no address is refused with the other settings.
                let port = layers.text("listen_peer").and_then(Url::parse).map(|url| url.port());
                let address = format!("{}:{}", self.host()?, port.unwrap_or(PEER_PORT));
                Ok(Url::parse_with(&address, https).context("no address")?.to_string())
            }
        }
    }

    /// The host by which this machine reaches the cluster.
    fn host(&self) -> anyhow::Result<String> {
        let member = without_scheme(self.members[0].trim());
        let socket = UdpSocket::bind("0.0.0.0:0").or_else(|_| UdpSocket::bind("[::]:0"))?;
        // This sends nothing, but the system chooses an address.
        socket.connect(member).with_context(|| format!("can't reach {member}; --peer gives the address to use"))?;
        let address = socket.local_addr()?;
        Ok(if address.is_ipv6() { format!("[{}]", address.ip()) } else { address.ip().to_string() })
    }

    fn configuration(&self, peer: &str, members: &[Member]) -> anyhow::Result<ServerConfig> {
        let mut layers = Layers::new();
        // What the user gives has priority.
        let name = format!("member-{}", without_scheme(peer).replace(['.', ':', '[', ']'], "-"));
        layers.add_flag("name", name);
        if self.peer.is_none() {
            layers.add_flag("listen_client", format!("{}:2379", self.host()?));
        }
        layers.add_all(self.settings.layers()?);
        let name = layers.text("name").unwrap_or_default().to_owned();
        let others = members.iter().filter(|member| !member.peer_ur_ls.iter().any(|url| url == peer));
        let others = others.filter_map(|member| Some(format!("{}={}", hex(member.id), member.peer_ur_ls.first()?)));
        let mut all: Vec<String> = others.collect();
        all.push(format!("{name}={peer}"));
        layers.add_flag("initial_cluster", all.join(","));
        layers.add_flag("initial_cluster_state", "existing".to_owned());
        Ok(layers.check()?)
    }
}

/// An address without its scheme.
fn without_scheme(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, authority)| authority)
}

/// Tells how far the new member has come, and removes the one that it replaces.
struct Progress {
    client: Client,
    runtime: tokio::runtime::Runtime,
    replaced: Option<Member>,
    /// When it was told last.
    reported: Option<Instant>,
    /// Whether it was told that this member votes.
    told: bool,
}

impl Progress {
    fn follow(&mut self, server: &Server) {
        let (status, own) = (server.replica().status(), server.replica().id());
        let votes = status.membership.is_voter(own);
        if votes && !self.told {
            self.told = true;
            info!("caught up: this member votes from now on");
        }
        if (votes && self.replaced.is_none()) || self.reported.is_some_and(|reported| reported.elapsed() < REPORT) {
            return;
        }
        self.reported = Some(Instant::now());
        if votes {
            self.remove_replaced();
        } else if status.members.get(own.0).is_none_or(|record| !record.is_learner) {
            info!(applied = status.applied_index, known = status.last_index, "catching up");
        }
    }

    fn remove_replaced(&mut self) {
        let Some(replaced) = &self.replaced else { return };
        let (id, removed) = (hex(replaced.id), self.runtime.block_on(self.client.member_remove(replaced.id)));
        match removed {
            Ok(_) => info!(member = id, "removed the member that this one replaces"),
            Err(error) if error.to_string().contains("member not found") => {}
            Err(error) => {
                warn!(member = id, %error, "can't remove the member that this one replaces; trying again");
                return;
            }
        }
        self.replaced = None;
    }
}
