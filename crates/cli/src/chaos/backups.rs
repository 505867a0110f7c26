//! Backups, taken while faults strike, and compared with the cluster at the end.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bowline_client::Client;
use tokio::task::JoinHandle;

/// Pause between two backups.
const EVERY: Duration = Duration::from_secs(7);

/// Time limit of a backup while faults strike, and for a restored member to serve.
const PATIENCE: Duration = Duration::from_secs(30);

/// Interval between looks at the flag, and at a restored member.
const LOOK: Duration = Duration::from_millis(100);

/// Takes backups of one member after the other until `done`. Returns the files.
pub(super) fn start(folder: &Path, endpoints: &[String], done: &Arc<AtomicBool>) -> JoinHandle<Vec<PathBuf>> {
    let (folder, endpoints, done) = (folder.to_owned(), endpoints.to_vec(), Arc::clone(done));
    tokio::spawn(async move {
        let mut files = Vec::new();
        for (number, endpoint) in endpoints.iter().cycle().enumerate() {
            let next = Instant::now() + EVERY;
            while Instant::now() < next {
                if done.load(Ordering::Relaxed) {
                    return files;
                }
                tokio::time::sleep(LOOK).await;
            }
            let file = folder.join(format!("backup-{number}.db"));
            // The member may be down, or a fault may end the transfer: then there is no file.
            if save(&file, endpoint).await.is_ok() {
                files.push(file);
            }
        }
        files
    })
}

/// Checks each backup, then takes another one, restores it, and compares it with the cluster, which has this revision
/// and checksum.
pub(super) async fn check(
    folder: &Path,
    endpoint: &str,
    files: &[PathBuf],
    (revision, hash): (i64, u32),
) -> anyhow::Result<()> {
    for file in files {
        restore(file, &folder.join("unused"), "r=http://127.0.0.1:2380", true).await?;
    }
    let last = folder.join("backup-last.db");
    save(&last, endpoint).await?;
    let [client, peer] = free_ports()?;
    let (data, cluster) = (folder.join("restored"), format!("r=http://127.0.0.1:{peer}"));
    restore(&last, &data, &cluster, false).await?;
    let mut member = serve(&data, &cluster, client)?;
    let compared = compare(client, (revision, hash)).await;
    member.kill().and_then(|()| member.wait()).context("can't stop the restored member")?;
    compared
}

async fn compare(port: u16, expected: (i64, u32)) -> anyhow::Result<()> {
    let restored = Client::new(&[format!("127.0.0.1:{port}")], PATIENCE)?;
    let until = Instant::now() + PATIENCE;
    loop {
        let found = restored.hash_kv(0).await.pop().and_then(|(_, hash)| hash.ok());
        match found {
            Some(found) if (found.hash_revision, found.hash) == expected => return Ok(()),
            Some(found) => bail!(
                "the restored backup has revision {} and hash {:08x}, but the members have {} and {:08x}",
                found.hash_revision,
                found.hash,
                expected.0,
                expected.1
            ),
            None if Instant::now() >= until => {
                bail!("the restored member does not answer within {} s", PATIENCE.as_secs())
            }
            None => tokio::time::sleep(LOOK).await,
        }
    }
}

async fn save(file: &Path, endpoint: &str) -> anyhow::Result<()> {
    let mut command = program()?;
    command.args(["snapshot", "save"]).arg(file).args(["--endpoints", endpoint]);
    run(&mut command).await
}

async fn restore(file: &Path, data: &Path, cluster: &str, dry_run: bool) -> anyhow::Result<()> {
    let mut command = program()?;
    command.args(["snapshot", "restore"]).arg(file).arg("--data-dir").arg(data);
    command.args(["--name", "r", "--initial-cluster", cluster, "--keep-revisions"]);
    command.args(dry_run.then_some("--dry-run"));
    run(&mut command).await
}

fn serve(data: &Path, cluster: &str, client: u16) -> anyhow::Result<Child> {
    let mut command = program()?;
    command.arg("serve").arg("--data-dir").arg(data).args(["--name", "r", "--initial-cluster", cluster]);
    command.args(["--listen-client", &format!("127.0.0.1:{client}"), "--stop-at-eof"]);
    command.stdin(Stdio::piped()).spawn().context("can't start the restored member")
}

fn program() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("can't find this program")?);
    // Ctrl-C must reach only this process.
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

async fn run(command: &mut Command) -> anyhow::Result<()> {
    let (mut child, until) = (command.spawn().context("can't start this program")?, Instant::now() + PATIENCE);
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => bail!("{command:?} failed ({status})"),
            None if Instant::now() >= until => {
                // It may have ended just now.
                let _ = child.kill().and_then(|()| child.wait().map(drop));
                bail!("{command:?} has not ended after {} s", PATIENCE.as_secs());
            }
            None => tokio::time::sleep(LOOK).await,
        }
    }
}

fn free_ports() -> anyhow::Result<[u16; 2]> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free");
    // Both are held until both are known.
    let held = [listen()?, listen()?];
    Ok([held[0].local_addr()?.port(), held[1].local_addr()?.port()])
}
