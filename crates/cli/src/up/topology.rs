//! The members of a local cluster. A file in its data folder lists them, so that a later start runs the same cluster.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use bowline_storage::private_options;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};

use crate::exit::NotDone;

const FILE: &str = "cluster.json";

/// A member of a local cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: u64,
    pub(super) client_port: u16,
    pub(super) peer_port: u16,
}

impl Member {
    pub(super) fn client_address(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }
}

/// A local cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Topology {
    pub(super) folder: PathBuf,
    /// Distinguishes this cluster from all others.
    pub(super) token: String,
    pub(super) members: Vec<Member>,
    /// The members' processes at the last start.
    pub(super) pids: Vec<u32>,
    /// The process that supervises them.
    pub(super) supervisor: Option<u32>,
    /// Whether every member has had a data folder: one that is missing is lost, not new.
    pub(super) founded: bool,
    /// Whether clients and members use TLS, with certificates in its folder.
    pub(super) tls: bool,
    /// Whether the cluster was never saved.
    new: bool,
}

impl Topology {
    /// Loads the cluster of a folder, or makes a new one whose members take two ports each, from `first_port` on.
    pub(super) fn load_or_found(folder: &Path, members: u64, first_port: u16, tls: bool) -> anyhow::Result<Topology> {
        if let Some(topology) = Topology::load(folder)? {
            if tls && !topology.tls {
                bail!("the cluster in {} is without TLS; for a new one, use another --data-dir", folder.display());
            }
            return Ok(topology);
        }
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.with_context(|| format!("can't create {}", folder.display()))?;
        let member = |(id, port): (u64, u16)| Member { id, client_port: port, peer_port: port + 1 };
        let token = format!("up-{:016x}", getrandom::u64()?);
        let members = (1..=members).zip((first_port..).step_by(2)).map(member).collect();
        let folder = folder.to_owned();
        Ok(Topology { folder, token, members, pids: Vec::new(), supervisor: None, founded: false, tls, new: true })
    }

    /// Loads the cluster of a folder, if there is one.
    pub(super) fn load(folder: &Path) -> anyhow::Result<Option<Topology>> {
        let path = folder.join(FILE);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("can't read {}", path.display()))?,
        };
        let parsed = serde_json::from_str(&text).ok().and_then(|value: Value| Topology::parse(folder, &value));
        parsed.map(Some).with_context(|| format!("{} is damaged; it lists the members of the cluster", path.display()))
    }

    fn parse(folder: &Path, value: &Value) -> Option<Topology> {
        let port = |member: &Value, name: &str| member.get(name)?.as_u64()?.try_into().ok();
        let member = |member: &Value| {
            let id = member.get("id")?.as_u64().filter(|id| *id > 0)?;
            let (client_port, peer_port) = (port(member, "client_port")?, port(member, "peer_port")?);
            Some(Member { id, client_port, peer_port })
        };
        let pid = |value: &Value| value.as_u64().and_then(|pid| u32::try_from(pid).ok());
        let members: Vec<Member> = value.get("members")?.as_array()?.iter().map(member).collect::<Option<_>>()?;
        Some(Topology {
            folder: folder.to_owned(),
            token: value.get("token")?.as_str()?.to_owned(),
            members: Some(members).filter(|members| !members.is_empty())?,
            pids: value.get("pids")?.as_array()?.iter().filter_map(pid).collect(),
            supervisor: value.get("supervisor").and_then(pid),
            founded: value.get("founded").and_then(Value::as_bool).unwrap_or(false),
            tls: value.get("tls").and_then(Value::as_bool).unwrap_or(false),
            new: false,
        })
    }

    pub(super) fn save(&self) -> anyhow::Result<()> {
        let path = self.folder.join(FILE);
        let member = |member: &Member| json!({ "id": member.id, "client_port": member.client_port, "peer_port": member.peer_port });
        let members: Vec<Value> = self.members.iter().map(member).collect();
        let value = json!({
            "token": self.token, "founded": self.founded, "members": members, "pids": self.pids,
            "supervisor": self.supervisor, "tls": self.tls,
        });
        // Renaming a complete file leaves no half-written one after a crash.
        let temporary = path.with_extension("tmp");
        let written = private_options().write(true).create(true).truncate(true).open(&temporary);
        written
            .and_then(|mut file| file.write_all(format!("{value:#}\n").as_bytes()))
            .and_then(|()| fs::rename(&temporary, &path))
            .with_context(|| format!("can't write {}", path.display()))
    }

    pub(super) fn forget_processes(&mut self) -> anyhow::Result<()> {
        self.pids.clear();
        self.supervisor = None;
        self.save()
    }

    /// Its processes that are running.
    pub(super) fn running(&self) -> Vec<u32> {
        self.pids.iter().chain(&self.supervisor).copied().filter(|pid| is_running(*pid)).collect()
    }

    /// Checks that the ports are free. A new cluster replaces those in use and returns a note on each; clients know an
    /// old cluster by its ports, so it keeps them.
    pub(super) fn check_ports(&mut self) -> anyhow::Result<Vec<String>> {
        let mut notes = Vec::new();
        // The listeners stay open until all ports are chosen, so that no port is chosen twice.
        let mut held = Vec::new();
        for member in &mut self.members {
            let id = member.id;
            for (what, port) in [("clients", &mut member.client_port), ("members", &mut member.peer_port)] {
                match TcpListener::bind((Ipv4Addr::LOCALHOST, *port)) {
                    Ok(listener) => held.push(listener),
                    Err(error) if !self.new => {
                        let taken = format!("port {port} of member {id} is not available: {error}");
                        bail!(NotDone(format!("{taken}; is another cluster running?")));
                    }
                    Err(_) => {
                        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
                        let free = listener.local_addr().context("no port is free")?.port();
                        notes.push(format!("port {port} is in use: member {id} listens for {what} on port {free}"));
                        *port = free;
                        held.push(listener);
                    }
                }
            }
        }
        Ok(notes)
    }

    /// The value of `--initial-cluster`.
    pub(super) fn initial_cluster(&self) -> String {
        let scheme = self.scheme();
        let url = |member: &Member| format!("{}={scheme}://127.0.0.1:{}", member.id, member.peer_port);
        let members = self.members.iter().map(url);
        members.collect::<Vec<_>>().join(",")
    }

    /// The scheme of its addresses.
    pub(super) fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// The folder of its certificates, from the root, because commands elsewhere shall find them.
    pub(super) fn certificates(&self) -> PathBuf {
        let certificates = self.folder.join("certs");
        std::path::absolute(&certificates).unwrap_or(certificates)
    }

    /// The files of a client: the CA, its certificate and its key.
    pub(super) fn client_files(&self) -> Option<[PathBuf; 3]> {
        self.tls.then(|| ["ca.crt", "client.crt", "client.key"].map(|file| self.certificates().join(file)))
    }

    /// The settings of TLS, and their files.
    pub(super) fn tls_flags(&self) -> Vec<(&'static str, PathBuf)> {
        let files = [
            ("--cert-file", "member.crt"),
            ("--key-file", "member.key"),
            ("--trusted-ca-file", "ca.crt"),
            ("--peer-cert-file", "member.crt"),
            ("--peer-key-file", "member.key"),
            ("--peer-trusted-ca-file", "ca.crt"),
        ];
        let given = files.into_iter().filter(|_| self.tls);
        given.map(|(flag, file)| (flag, self.certificates().join(file))).collect()
    }

    pub(super) fn member_folder(&self, member: &Member) -> PathBuf {
        self.folder.join(format!("member-{}", member.id))
    }
}

/// Whether a process of this program has this id. The system reuses ids, so the name is checked, too.
pub(super) fn is_running(pid: u32) -> bool {
    let alive = as_pid(pid).is_some_and(|pid| test_kill_process(pid).is_ok());
    let program = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie is not running.
    let ended = state.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
    alive && program.trim().starts_with("bowline") && !ended
}

pub(super) fn tell_to_stop(pid: u32) {
    if let Some(pid) = as_pid(pid) {
        // The process may have ended already.
        let _ = kill_process(pid, Signal::TERM);
    }
}

pub(super) fn as_pid(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_the_same_when_it_is_started_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut new = Topology::load_or_found(folder.path(), 3, 2379, true).expect("made");
        assert!(Topology::load(folder.path()).expect("readable").is_none(), "not before it is saved");
        new.pids = vec![1, 2, 3];
        new.save().expect("saved");
        let again = Topology::load_or_found(folder.path(), 5, 2379, false).expect("loaded");
        assert_eq!(again, Topology { new: false, ..new });
        assert_eq!((again.members.len(), again.tls), (3, true));
    }

    #[test]
    fn a_new_cluster_avoids_ports_that_are_taken_and_says_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut topology = Topology::load_or_found(folder.path(), 1, 2379, false).expect("made");
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        topology.members[0].client_port = taken.local_addr().expect("bound").port();
        topology.members[0].peer_port = topology.members[0].client_port;
        let notes = topology.check_ports().expect("others are free");
        assert_eq!(notes.len(), 2);
        assert_ne!(topology.members[0].client_port, taken.local_addr().expect("bound").port());
        assert_ne!(topology.members[0].client_port, topology.members[0].peer_port);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(FILE), "{}").expect("written");
        let error = Topology::load(folder.path()).expect_err("damaged").to_string();
        assert!(error.ends_with("cluster.json is damaged; it lists the members of the cluster"), "{error}");
    }
}
