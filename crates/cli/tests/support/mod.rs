//! A cluster for a test: real processes, in a folder of their own.

// Not every test uses all of it.
#![allow(dead_code)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

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
