//! A real etcd, as a process of its own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use pb::maintenance_client::MaintenanceClient;
use tempfile::TempDir;

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Etcd {
    program: PathBuf,
    flags: Vec<String>,
    folder: TempDir,
    client: String,
    peer: String,
    child: Child,
}

impl Etcd {
    /// Starts one member with an empty store, and waits until it serves.
    pub(crate) async fn start(program: &Path, settings: &[(&str, &str)]) -> Etcd {
        let flag = |(key, value): &(&str, &str)| format!("--{}={value}", key.replace('_', "-"));
        let flags: Vec<String> = settings.iter().map(flag).collect();
        for _ in 0..3 {
            let folder = tempfile::tempdir().expect("a folder");
            // Somebody else may take the ports before it does: then once more.
            let (client, peer) = (free_url(), free_url());
            let child = launch(program, &flags, folder.path(), &client, &peer);
            let mut etcd = Etcd { program: program.to_owned(), flags: flags.clone(), folder, client, peer, child };
            if etcd.serves().await {
                return etcd;
            }
        }
        panic!("{} doesn't start", program.display());
    }

    pub(crate) fn url(&self) -> &str {
        &self.client
    }

    /// As kill -9, and a start in the same folder.
    pub(crate) async fn restart(&mut self) {
        self.stop();
        self.child = launch(&self.program, &self.flags, self.folder.path(), &self.client, &self.peer);
        assert!(self.serves().await, "it doesn't come back");
    }

    async fn serves(&mut self) -> bool {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            if let Ok(mut client) = MaintenanceClient::connect(self.client.clone()).await
                && let Ok(status) = client.status(pb::StatusRequest {}).await
                && status.get_ref().leader != 0
            {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    fn stop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_url() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has ports");
    format!("http://{}", listener.local_addr().expect("it is bound"))
}

fn launch(program: &Path, flags: &[String], folder: &Path, client: &str, peer: &str) -> Child {
    Command::new(program)
        .args(["--name", "only", "--data-dir"])
        .arg(folder.join("data"))
        .args(["--listen-client-urls", client, "--advertise-client-urls", client])
        .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
        .args(["--initial-cluster", &format!("only={peer}")])
        .args(["--heartbeat-interval", "20", "--election-timeout", "200", "--logger", "zap", "--log-level", "fatal"])
        .args(flags)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()))
}
