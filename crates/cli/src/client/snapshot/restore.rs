//! The command `snapshot restore`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bowline_kv::store::BackupPlan;
use bowline_server::config::{Layers, ServerConfig};
use bowline_server::paste::quote;
use bowline_server::restore;
use clap::Args;
use serde_json::json;

use super::file::{self, Checked};
use crate::client::output::{Format, OutputArgs, write_json};
use crate::exit::Exit;
use crate::out::Out;

#[derive(Args, Debug)]
#[command(
    after_help = "Run this once for each member of the new cluster: with the same file and the same options, but \
each member's own --name and --data-dir. Then start the members with `bowline serve` and the same --name, --data-dir, \
--initial-cluster and --cluster-token. If members of the old cluster may still run, choose a new --cluster-token: then \
they can't be taken for members of the new one.

The revision is raised by default, and everything before it counts as compacted. So whoever watched the old cluster, or \
has read it, notices that revisions were lost or done again. With --keep-revisions, the revisions and the history are \
those of the file: then two different writes, one before and one after, may have the same revision.

Keys, values, versions and leases are kept, each lease with its full time to live. Alarms and members are not. A file \
with users or roles is refused.

Exit codes: 0 restored; 1 failed, and nothing was changed; 2 bad input."
)]
pub(crate) struct RestoreCommand {
    /// A file of `bowline snapshot save`, `etcdctl snapshot save`, or `db` from etcd's data folder.
    file: PathBuf,
    /// The data folder to make; it must be empty, or not exist.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Name of the member in --initial-cluster.
    #[arg(long)]
    name: String,
    /// Name and address of each member of the new cluster.
    #[arg(long, value_name = "NAME=URL,...")]
    initial_cluster: String,
    /// Text that distinguishes clusters with the same --initial-cluster [default: bowline]
    #[arg(long, value_name = "TOKEN")]
    cluster_token: Option<String>,
    /// Raise the revision by so much.
    #[arg(long, value_name = "N", default_value_t = 1_000_000_000, value_parser = clap::value_parser!(i64).range(1..))]
    bump_revision: i64,
    /// Keep the revisions and the history.
    #[arg(long, conflicts_with = "bump_revision")]
    keep_revisions: bool,
    /// Restore a file that has no checksum, or a wrong one.
    #[arg(long)]
    skip_hash_check: bool,
    /// Only check, and say what would be done.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl RestoreCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let config = self.configuration()?;
        restore::check_folder(&self.data_dir)?;
        let place = || self.file.display().to_string();
        let backup = if self.skip_hash_check {
            file::open_unchecked(&self.file)?
        } else {
            let (backup, checked) = file::open(&self.file)?;
            if checked == Checked::None {
                bail!(
                    "{} has no checksum, so damage would not be noticed; a file copied from etcd's data folder can be \
                     restored with --skip-hash-check",
                    place()
                );
            }
            backup
        };
        let raise = (!self.keep_revisions).then_some(self.bump_revision);
        let plan = backup.plan(raise).with_context(place)?;
        if self.dry_run {
            restore::rehearse(&backup, &plan).with_context(place)?;
        } else {
            restore::from_backup(&config, &backup, &plan).with_context(place)?;
        }
        self.tell(&config, &plan)
    }

    /// The configuration that `serve` will have, so that both derive the same ids.
    fn configuration(&self) -> anyhow::Result<ServerConfig> {
        let mut layers = Layers::new();
        let folder = self
            .data_dir
            .to_str()
            .with_context(|| format!("--data-dir is {:?}; allowed: a path that is UTF-8", self.data_dir))?;
        layers.add_flag("data_dir", folder.to_owned());
        layers.add_flag("name", self.name.clone());
        layers.add_flag("initial_cluster", self.initial_cluster.clone());
        if let Some(token) = &self.cluster_token {
            layers.add_flag("cluster_token", token.clone());
        }
        Ok(layers.check()?)
    }

    fn tell(&self, config: &ServerConfig, plan: &BackupPlan) -> anyhow::Result<Exit> {
        let mut out = Out::lock();
        if !self.dry_run {
            out.done();
        }
        let (member, cluster) = (config.id.0, config.cluster_id());
        let (revision, compacted, keys) = (plan.revision(), plan.compacted_revision(), plan.keys());
        if self.output.format() == Format::Json {
            let json = json!({
                "member": format!("{member:016x}"), "cluster": format!("{cluster:016x}"), "revision": revision,
                "compact_revision": compacted, "keys": keys, "data_dir": self.data_dir.to_string_lossy(),
                "dry_run": self.dry_run,
            });
            write_json(&json, &mut out)?;
        } else {
            let what = if self.dry_run { "would restore" } else { "restored" };
            let name = quote(self.name.as_ref());
            writeln!(
                out,
                "{what} {keys} keys at revision {revision} for member {name} ({member:016x}) of cluster {cluster:016x}"
            )?;
            if !self.dry_run {
                writeln!(out, "start it when all members are restored:\n  {}", self.serve())?;
            }
        }
        out.flush()?;
        Ok(Exit::Passed)
    }

    /// The command that starts the member.
    fn serve(&self) -> String {
        let path: &Path = &self.data_dir;
        let mut command = format!(
            "bowline serve --name {} --data-dir {} --initial-cluster {}",
            quote(self.name.as_ref()),
            quote(path.as_os_str()),
            quote(self.initial_cluster.as_ref())
        );
        if let Some(token) = &self.cluster_token {
            command.push_str(&format!(" --cluster-token {}", quote(token.as_ref())));
        }
        command
    }
}
