//! The client commands: `bowline put`, `get`, `del`, `txn`, `watch`, `lease`, `lock`, `elect`, `compact`, `alarm`,
//! `member`, `move-leader`, `hashkv`, `status`, `snapshot`, `mirror`, `user`, `role`, `auth` and `shell`.
//!
//! Each request has its own arguments ([`PutArgs`], [`RangeArgs`], ...), which the command line, the shell and
//! transactions share.

use std::env::VarError;
use std::io::Write;
use std::time::Duration;

use anyhow::bail;
use bowline_client::Client;
use clap::Args;

use crate::exit::Exit;
use crate::out::Out;
use output::OutputArgs;

mod alarm;
mod auth;
mod compact;
mod completion;
mod del;
mod elect;
mod get;
mod hashkv;
mod hold;
mod lease;
mod lines;
mod lock;
mod login;
mod member;
mod mirror;
mod notation;
mod output;
mod put;
mod range;
mod roles;
mod shell;
mod snapshot;
mod status;
mod table;
mod tls;
mod txn;
mod txn_text;
mod users;
mod watch;
mod words;

pub(crate) use alarm::{AlarmCommand, AlarmListArgs, DisarmArgs};
pub(crate) use auth::{AuthCommand, AuthDisableArgs, AuthEnableArgs, AuthStatusArgs};
pub(crate) use compact::CompactArgs;
pub(crate) use del::DelArgs;
pub(crate) use elect::ElectArgs;
pub(crate) use get::GetArgs;
pub(crate) use hashkv::HashKvArgs;
pub(crate) use lease::{GrantArgs, KeepAliveArgs, LeaseCommand, ListArgs, RevokeArgs, TimeToLiveArgs};
pub(crate) use lock::LockArgs;
pub(crate) use login::LoginArgs;
pub(crate) use member::{
    MemberAddArgs, MemberCommand, MemberListArgs, MemberPromoteArgs, MemberRemoveArgs, MemberReplaceArgs,
    MemberUpdateArgs, MoveLeaderArgs, find, hex, peer_url,
};
pub(crate) use mirror::MirrorCommand;
pub(crate) use notation::Notation;
pub(crate) use output::human_size;
pub(crate) use put::PutArgs;
pub(crate) use range::RangeArgs;
pub(crate) use roles::{
    GrantPermissionArgs, RevokePermissionArgs, RoleAddArgs, RoleCommand, RoleDeleteArgs, RoleGetArgs, RoleListArgs,
};
pub(crate) use shell::ShellCommand;
pub(crate) use snapshot::SnapshotCommand;
pub(crate) use status::StatusArgs;
pub(crate) use table::Table;
pub(crate) use tls::TlsArgs;
pub(crate) use txn::TxnArgs;
pub(crate) use users::{
    UserAddArgs, UserCommand, UserDeleteArgs, UserGetArgs, UserGrantRoleArgs, UserListArgs, UserPasswdArgs,
    UserRevokeRoleArgs,
};
pub(crate) use watch::WatchArgs;

/// The default endpoint.
const DEFAULT_ENDPOINT: &str = "127.0.0.1:2379";

/// How to reach the cluster.
#[derive(Args, Clone, Debug)]
pub(crate) struct Cluster {
    /// Addresses of members, separated by commas [default: $BOWLINE_ENDPOINTS, $ETCDCTL_ENDPOINTS, or
    /// 127.0.0.1:2379]
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT")]
    endpoints: Vec<String>,
    /// Time limit of a request, in seconds.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=600), value_name = "SECONDS")]
    timeout: u64,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    login: LoginArgs,
}

impl Cluster {
    /// Time limit of a request.
    pub(crate) fn patience(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let mut endpoints = self.endpoints.clone();
        if endpoints.is_empty() {
            let told = |name| match std::env::var(name) {
                // Falling back to the default could reach another cluster.
                Err(VarError::NotUnicode(value)) => {
                    bail!("{name} is {value:?}; allowed: host:port, separated by commas")
                }
                value => Ok(value.ok().filter(|value| !value.is_empty())),
            };
            let variable = match told("BOWLINE_ENDPOINTS")? {
                None => told("ETCDCTL_ENDPOINTS")?,
                told => told,
            };
            endpoints = variable.as_deref().unwrap_or(DEFAULT_ENDPOINT).split(',').map(str::to_owned).collect();
        }
        self.client_of(&endpoints)
    }

    /// The same, with other endpoints.
    pub(crate) fn client_of(&self, endpoints: &[String]) -> anyhow::Result<Client> {
        let client = self.tls.client(endpoints, self.patience())?;
        Ok(self.login.credentials()?.apply(client))
    }
}

/// A request to a cluster.
pub(crate) trait Request {
    /// Sends the request and writes the result, only data, to `out`. Calls [`Out::done`] as soon as something is
    /// changed.
    async fn run(&self, client: &mut Client, output: OutputArgs, out: &mut Out) -> anyhow::Result<Exit>;
}

/// A request as a command of `bowline`.
#[derive(Args, Debug)]
pub(crate) struct Once<R: Args> {
    #[command(flatten)]
    request: R,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    cluster: Cluster,
}

impl<R: Args + Request> Once<R> {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let mut client = self.cluster.client()?;
        let mut out = Out::lock();
        let verdict = runtime()?.block_on(self.request.run(&mut client, self.output, &mut out))?;
        out.flush()?;
        Ok(verdict)
    }
}

/// A runtime on the calling thread.
pub(crate) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
