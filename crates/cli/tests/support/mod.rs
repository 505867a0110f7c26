//! A cluster for a test: real processes, in a folder of their own.

// Not every test uses all of it.
#![allow(dead_code)]

use std::ffi::OsStr;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Stops the cluster of a folder whatever becomes of the test.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Folder {
        Folder(tempfile::tempdir().expect("a folder"))
    }

    /// A folder in which a cluster runs.
    pub(crate) fn with_cluster() -> Folder {
        let folder = Folder::new();
        let up = folder.bowline(&["up", "--detach"]);
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn bowline(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
        command.args(arguments).arg("--data-dir").arg(self.path()).output().expect("it starts")
    }

    pub(crate) fn cluster(&self) -> Value {
        let text = std::fs::read_to_string(self.path().join("cluster.json")).expect("a cluster is there");
        serde_json::from_str(&text).expect("it is JSON")
    }

    pub(crate) fn number(&self, pointer: &str) -> u64 {
        self.cluster().pointer(pointer).and_then(Value::as_u64).expect("a number is there")
    }

    /// All client addresses, with commas between them.
    pub(crate) fn endpoints(&self) -> String {
        let cluster = self.cluster();
        let members = cluster["members"].as_array().expect("members are listed").iter();
        let address = |member: &Value| format!("127.0.0.1:{}", member["client_port"]);
        members.map(address).collect::<Vec<_>>().join(",")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.bowline(&["down"]);
    }
}

/// A cluster of one, which ends with its test.
pub(crate) struct Member {
    endpoint: String,
    process: Child,
    _folder: tempfile::TempDir,
}

impl Member {
    /// Starts it, and waits until it serves.
    pub(crate) fn start() -> Member {
        let folder = tempfile::tempdir().expect("a folder");
        // Ports that are free, both held until both are known.
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port is free"));
        let [endpoint, peer] = listeners.map(|listener| listener.local_addr().expect("it is bound").to_string());
        let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
        command.args(["serve", "--id", "1", "--initial-cluster", &format!("1=http://{peer}"), "--stop-at-eof"]);
        command.args(["--listen-client", &endpoint]).arg("--data-dir").arg(folder.path().join("data"));
        let process = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let member = Member { endpoint, process: process.expect("it starts"), _folder: folder };
        let until = Instant::now() + Duration::from_secs(30);
        while member.ask(&["get", "--count-only", "x"]).code != Some(0) {
            assert!(Instant::now() < until, "the member is not ready: {:?}", member.ask(&["status"]));
            std::thread::sleep(Duration::from_millis(20));
        }
        member
    }

    /// A command that asks this member.
    pub(crate) fn command<W: AsRef<OsStr>>(&self, words: &[W]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
        command.args(words).env("BOWLINE_ENDPOINTS", &self.endpoint);
        command
    }

    pub(crate) fn ask_with<W: AsRef<OsStr>>(&self, words: &[W], input: &[u8]) -> Said {
        run(&mut self.command(words), input)
    }

    pub(crate) fn ask<W: AsRef<OsStr>>(&self, words: &[W]) -> Said {
        self.ask_with(words, b"")
    }

    /// What the shell makes of these lines.
    pub(crate) fn shell(&self, lines: &[u8]) -> Said {
        self.ask_with(&["shell"], lines)
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.ask(&["get", key]).code == Some(0)
    }

    /// It does what it is asked, and says this.
    pub(crate) fn says<W: AsRef<OsStr> + std::fmt::Debug>(&self, words: &[W], expected: &str) {
        let said = self.ask(words);
        assert_eq!((said.code, said.text()), (Some(0), expected), "{words:?}: {said:?}");
    }

    pub(crate) fn json<W: AsRef<OsStr> + std::fmt::Debug>(&self, words: &[W]) -> Value {
        let said = self.ask(words);
        serde_json::from_slice(&said.out).unwrap_or_else(|error| panic!("{words:?}: {error}: {said:?}"))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // One that has ended already is what was wanted.
        let _ = self.process.kill().and_then(|()| self.process.wait().map(drop));
    }
}

/// How a program ended, and what it said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.out).expect("it is text")
    }
}

/// Runs a program to its end, with `input` on its standard input.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Said {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    // One that has ended already reads nothing.
    let _ = stdin.write_all(input);
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    Said { code: output.status.code(), out: output.stdout, err }
}
