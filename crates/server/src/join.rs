//! How a new member finds its cluster, and how a member finds it again that joined and knows nothing else yet.

use std::collections::BTreeMap;
use std::time::Duration;

use bowline_kv::store::{Command, MemberChange, MemberRequest, MemberUrls};
use bowline_node::raft::{Entry, NodeId, Payload};
use bowline_tls::TlsError;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::clock::stopwatch;
use crate::config::{ServerConfig, Url};
use crate::peer::{ClusterInfo, HandshakeError, Introduction, MemberInfo, discover, secure};
use crate::threads;

/// Time limit for connecting to one member.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a member that was just added may be unknown to all that answer.
const LAG: Duration = Duration::from_secs(5);

/// Pause between two rounds.
const PAUSE: Duration = Duration::from_millis(100);

/// What a new member must know to start.
#[derive(Debug)]
pub(crate) struct Joined {
    /// The id of the cluster.
    pub(crate) cluster: u64,
    /// The id of this member.
    pub(crate) id: NodeId,
    /// Host and port of each member's peer port.
    pub(crate) members: BTreeMap<NodeId, String>,
}

/// Why a new member can't join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No member answers.
    #[error("no member of the cluster answers: {reasons}; check --initial-cluster")]
    Unreachable {
        /// Each address, and why it does not answer.
        reasons: String,
    },
    /// There is no data, and the member is not new.
    #[error(
        "{folder} holds no data, but the member at {address} has started before: if its data is elsewhere, point \
         --data-dir there; if it is lost, replace the member: bowline join --replace {id:x}"
    )]
    DataLost {
        /// The data folder.
        folder: String,
        /// The address.
        address: String,
        /// Its id.
        id: u64,
    },
    /// The cluster does not know this member.
    #[error(
        "cluster {cluster:016x} has no member at {address} (it has {members}): add it first with `bowline member add`, \
         or let `bowline join` do both"
    )]
    Unknown {
        /// The cluster.
        cluster: u64,
        /// The address of this member.
        address: String,
        /// The members' addresses.
        members: String,
    },
    /// The data in the folder belongs to another cluster than the one that answers.
    #[error("the data belongs to cluster {own:016x}, but the members of --initial-cluster form cluster {found:016x}")]
    OtherCluster {
        /// The cluster of the data.
        own: u64,
        /// The cluster that answers.
        found: u64,
    },
    /// A file of the TLS between members can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system refused sockets or threads.
    #[error("can't connect to the cluster: {0}")]
    System(#[from] std::io::Error),
}

/// Finds the cluster that a new member joins, and the member's id there.
///
/// # Errors
/// See [`JoinError`].
pub(crate) fn find(config: &ServerConfig) -> Result<Joined, JoinError> {
    let own = config.advertise_peer.authority();
    let is_own = |member: &&MemberInfo| addresses(member).any(|address| address == own);
    let until = stopwatch() + LAG;
    let (info, member) = loop {
        let info = ask_all(config, |info| info.members.iter().any(|member| is_own(&member)))?;
        if let Some(member) = info.members.iter().find(is_own).cloned() {
            break (info, member);
        }
        if stopwatch() >= until {
            let members: Vec<String> = info.members.iter().flat_map(addresses).collect();
            let (cluster, address, members) = (info.cluster, own.to_owned(), members.join(", "));
            return Err(JoinError::Unknown { cluster, address, members });
        }
        threads::pause(PAUSE);
    };
    if member.has_started {
        let folder = config.data_dir.display().to_string();
        return Err(JoinError::DataLost { folder, address: own.to_owned(), id: member.id });
    }
    Ok(Joined { cluster: info.cluster, id: NodeId(member.id), members: known(&info) })
}

/// Finds the members of the cluster to which this member's data belongs.
///
/// # Errors
/// See [`JoinError`].
pub(crate) fn find_again(config: &ServerConfig, cluster: u64) -> Result<BTreeMap<NodeId, String>, JoinError> {
    let info = ask_all(config, |_| true)?;
    match info.cluster == cluster {
        true => Ok(known(&info)),
        false => Err(JoinError::OtherCluster { own: cluster, found: info.cluster }),
    }
}

/// The addresses of the members that the records in a log's entries give. Not all of these entries need be committed:
/// an address that is wrong harms nobody.
pub(crate) fn from_log(entries: &[Entry]) -> BTreeMap<NodeId, String> {
    let mut known = BTreeMap::new();
    for entry in entries {
        let Payload::Command(bytes) = &entry.payload else { continue };
        let Ok(Command::Member(MemberRequest { change: Some(change) })) = Command::from_bytes(bytes) else { continue };
        let (id, urls) = match change {
            MemberChange::Add(member) | MemberChange::Adopt(member) => (member.id, member.peer_urls),
            MemberChange::Update(MemberUrls { id, peer_urls }) => (id, peer_urls),
            MemberChange::Remove(_) | MemberChange::Publish(_) | MemberChange::Promote(_) => continue,
        };
        if let Some(url) = urls.first().and_then(|url| Url::parse(url)) {
            known.insert(NodeId(id), url.authority().to_owned());
        }
    }
    known
}

fn known(info: &ClusterInfo) -> BTreeMap<NodeId, String> {
    info.members.iter().filter_map(|member| Some((NodeId(member.id), addresses(member).next()?))).collect()
}

/// Host and port of each address.
fn addresses(member: &MemberInfo) -> impl Iterator<Item = String> {
    member.peer_urls.iter().filter_map(|url| Url::parse(url)).map(|url| url.authority().to_owned())
}

/// Asks the other members of `--initial-cluster`, one after the other, until one gives a good answer. If there is none,
/// the last answer must do.
fn ask_all(config: &ServerConfig, is_good: impl Fn(&ClusterInfo) -> bool) -> Result<ClusterInfo, JoinError> {
    let introduction = Introduction::new(&config.name, "", config.protocol);
    let own = config.advertise_peer.authority();
    let others = config.initial_cluster.values().map(|founder| founder.url.authority());
    let others: Vec<&str> = others.filter(|address| *address != own).collect();
    let connector = config.peer_tls.as_ref().map(|tls| tls.connector()).transpose()?;
    let (mut last, mut reasons) = (None, Vec::new());
    for address in others {
        // A runtime must not be started or dropped where another one may be running.
        let asked = threads::apart(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(ask(address, connector.as_ref(), &introduction)))
        });
        match asked? {
            Ok(info) if is_good(&info) => return Ok(info),
            Ok(info) => last = Some(info),
            Err(why) => reasons.push(format!("{address}: {why}")),
        }
    }
    if reasons.is_empty() {
        reasons.push("there is no other member in --initial-cluster".to_owned());
    }
    last.ok_or_else(|| JoinError::Unreachable { reasons: reasons.join("; ") })
}

async fn ask(
    address: &str,
    connector: Option<&TlsConnector>,
    introduction: &Introduction,
) -> Result<ClusterInfo, HandshakeError> {
    let stream = timeout(PATIENCE, TcpStream::connect(address)).await.map_err(|_| HandshakeError::Silent)?;
    let mut stream = secure(connector, address, stream.map_err(crate::peer::FrameError::from)?).await?;
    discover(&mut stream, introduction).await
}
