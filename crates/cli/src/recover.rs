//! `bowline recover` makes a new cluster from the data of the members that are left.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bowline_server::config::{Layers, ServerConfig, Url};
use bowline_server::paste::quote;
use bowline_server::restore;
use bowline_server::salvage::{self, Survivor};
use clap::Args;
use serde_json::{Value, json};

use crate::client::{Table, hex};
use crate::exit::{Exit, NotDone};
use crate::out::{Out, remark};

const EXAMPLES: &str = "Use this only if a majority of the members is lost for ever. As long as one of the lost members may \
come back, wait for it; if a majority is left, replace the lost ones with `bowline join --replace`. Copy the data \
folders of all members that are left to one machine, and name them all: the member with the longest log is taken. Its \
folder is not changed. The new cluster has one member; add others with `bowline join`.

What may be lost: acknowledged writes that are in none of the folders. What may be there although nobody acknowledged it: \
the last writes of the log. The revision is raised by default, and everything before it counts as compacted, so that \
watchers notice; with --keep-revisions the revisions and the history are kept.

Examples:
  bowline recover /var/lib/bowline --data-dir /var/lib/bowline-new --name a --peer 10.0.0.1:2380
  bowline recover /copies/a /copies/b --data-dir /var/lib/bowline-new --dry-run

Exit codes: 0 recovered; 1 failed or declined, and nothing was changed; 2 bad input.";

/// Makes a new cluster of one member from the data of members whose cluster has lost its majority.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RecoverCommand {
    /// Data folders of the members that are left.
    #[arg(required = true, value_name = "FOLDER")]
    folders: Vec<PathBuf>,
    /// Data folder to make; it must be empty, or not exist.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Name of the member of the new cluster.
    #[arg(long, default_value = "default")]
    name: String,
    /// Address at which other members can reach it.
    #[arg(long, default_value = "127.0.0.1:2380", value_name = "HOST:PORT")]
    peer: String,
    /// Raise the revision by so much.
    #[arg(long, value_name = "N", default_value_t = 1_000_000_000, value_parser = clap::value_parser!(i64).range(1..))]
    bump_revision: i64,
    /// Keep the revisions and the history.
    #[arg(long, conflicts_with = "bump_revision")]
    keep_revisions: bool,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Don't ask.
    #[arg(long)]
    yes: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

impl RecoverCommand {
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let token = format!("recovered-{:016x}", getrandom::u64()?);
        let config = self.configuration(&token)?;
        restore::check_folder(&self.data_dir)?;
        let mut survivors = Vec::new();
        for folder in &self.folders {
            survivors.push(salvage::inspect(folder).with_context(|| folder.display().to_string())?);
        }
        let clusters = survivors.iter().map(|survivor| survivor.identity.cluster);
        if clusters.clone().any(|cluster| cluster != survivors[0].identity.cluster) {
            let all: Vec<String> = clusters.map(|cluster| format!("{cluster:016x}")).collect();
            bail!("the folders belong to different clusters ({}); allowed: folders of one cluster", all.join(", "));
        }
        let best = survivors.iter().max_by_key(|survivor| survivor.last).context("there is no folder")?;
        if !self.json {
            self.explain(&survivors, best)?;
        }
        if self.dry_run {
            return self.tell(&survivors, best, None);
        }
        if !self.yes && !agrees()? {
            bail!(NotDone("nothing was changed".to_owned()));
        }
        let keys = self.recover(&config, best)?;
        self.tell(&survivors, best, Some((keys, &token)))
    }

    fn configuration(&self, token: &str) -> anyhow::Result<ServerConfig> {
        let mut layers = Layers::new();
        let folder = self.data_dir.to_str();
        let folder = folder.with_context(|| format!("--data-dir is {:?}; allowed: a path in UTF-8", self.data_dir))?;
        layers.add_flag("data_dir", folder.to_owned());
        layers.add_flag("name", self.name.clone());
        layers.add_flag("initial_cluster", format!("{}={}", self.name, self.peer));
        layers.add_flag("cluster_token", token.to_owned());
        Ok(layers.check()?)
    }

    /// Says exactly what may be lost.
    fn explain(&self, survivors: &[Survivor], best: &Survivor) -> anyhow::Result<()> {
        let mut table = Table::new(&["FOLDER", "MEMBER", "LAST ENTRY", "TERM", "COMMITTED", "DAMAGED"]);
        for survivor in survivors {
            table.row([
                survivor.folder.display().to_string(),
                hex(survivor.identity.replica.0),
                survivor.last.index.0.to_string(),
                survivor.last.term.0.to_string(),
                survivor.committed.0.to_string(),
                if survivor.is_damaged { "yes" } else { "no" }.to_owned(),
            ]);
        }
        let mut out = Out::lock();
        table.write(&mut out)?;
        let (member, last, committed) = (hex(best.identity.replica.0), best.last.index.0, best.committed.0);
        writeln!(out, "\nThe data of member {member} is taken, which has the longest log.")?;
        writeln!(out, "Lost: acknowledged writes after entry {last}, which only the missing members had.")?;
        if last > committed {
            writeln!(
                out,
                "Kept: entries {} to {last}, though it is unknown whether they were acknowledged.",
                committed + 1
            )?;
        }
        if best.is_damaged {
            writeln!(
                out,
                "Damaged: this log has lost entries that its member had acknowledged; they may be lost, too."
            )?;
        }
        writeln!(
            out,
            "The members of the old cluster must never run again: stop them, and delete their data afterwards."
        )?;
        out.flush()?;
        Ok(())
    }

    fn recover(&self, config: &ServerConfig, best: &Survivor) -> anyhow::Result<u64> {
        let name = format!(".{}-recovering", self.data_dir.file_name().unwrap_or_default().to_string_lossy());
        let workshop = self.data_dir.with_file_name(name);
        let made = std::fs::create_dir_all(&workshop);
        made.with_context(|| format!("can't create {}", workshop.display()))?;
        let recovered = self.recover_in(&workshop, config, best);
        // What is left there is of no use.
        let _ = std::fs::remove_dir_all(&workshop);
        recovered
    }

    fn recover_in(&self, workshop: &Path, config: &ServerConfig, best: &Survivor) -> anyhow::Result<u64> {
        remark!("copying {}, and applying its log ...", best.folder.display());
        let backup = salvage::save(best, workshop)?;
        let plan = backup.plan((!self.keep_revisions).then_some(self.bump_revision))?;
        remark!("writing {} ...", self.data_dir.display());
        restore::from_backup(config, &backup, &plan)?;
        Ok(plan.keys())
    }

    fn tell(&self, survivors: &[Survivor], best: &Survivor, done: Option<(u64, &str)>) -> anyhow::Result<Exit> {
        let mut out = Out::lock();
        if done.is_some() {
            out.done();
        }
        if self.json {
            let found = survivors.iter().map(|survivor| {
                json!({
                    "folder": survivor.folder.to_string_lossy(), "member": hex(survivor.identity.replica.0),
                    "last_index": survivor.last.index.0, "last_term": survivor.last.term.0,
                    "committed_index": survivor.committed.0, "damaged": survivor.is_damaged,
                })
            });
            let json = json!({
                "found": found.collect::<Value>(), "taken": hex(best.identity.replica.0), "dry_run": self.dry_run,
                "keys": done.map(|(keys, _)| keys), "data_dir": self.data_dir.to_string_lossy(),
                "cluster_token": done.map(|(_, token)| token),
            });
            writeln!(out, "{json}")?;
        } else if let Some((keys, token)) = done {
            writeln!(out, "recovered {keys} keys; start the member:\n  {}", self.serve(token))?;
        }
        out.flush()?;
        Ok(Exit::Passed)
    }

    /// The command that starts the member.
    fn serve(&self, token: &str) -> String {
        let peer = Url::parse(&self.peer).map_or_else(|| self.peer.clone(), |url| url.to_string());
        format!(
            "bowline serve --name {} --data-dir {} --initial-cluster {} --cluster-token {token}",
            quote(self.name.as_ref()),
            quote(self.data_dir.as_os_str()),
            quote(format!("{}={peer}", self.name).as_ref()),
        )
    }
}

/// Asks at the terminal.
fn agrees() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("standard input is no terminal, so nobody can be asked; allowed: --yes, after a look at --dry-run");
    }
    remark!("Type yes to go on:");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim() == "yes")
}
