//! A cluster for a test: real processes, in a folder of their own.

// Not every test uses all of it.
#![allow(dead_code)]

pub(crate) mod terminal;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Twenty ports that no other test takes, of any process: a cluster that was stopped finds its own ones free. They are
/// below those that the system gives to sockets that ask for none.
pub(crate) struct Ports {
    pub(crate) first: u16,
    _lock: File,
}

impl Ports {
    pub(crate) fn reserve() -> Ports {
        let block = |first: u16| {
            let lock = File::create(std::env::temp_dir().join(format!("bowline-test-ports-{first}"))).ok()?;
            lock.try_lock().ok()?;
            let free = (first..first + 20).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
            free.then_some(Ports { first, _lock: lock })
        };
        (12_000..32_000).step_by(20).find_map(block).expect("some of a thousand blocks of ports are free")
    }

    pub(crate) fn first(&self) -> u16 {
        self.first
    }

    /// The option of `bowline up` that takes them.
    pub(crate) fn option(&self) -> String {
        format!("--first-port={}", self.first)
    }
}

/// Stops the cluster of a folder whatever becomes of the test.
pub(crate) struct Folder {
    folder: tempfile::TempDir,
    pub(crate) ports: Ports,
}

impl Folder {
    pub(crate) fn new() -> Folder {
        Folder { folder: tempfile::tempdir().expect("a folder"), ports: Ports::reserve() }
    }

    /// A folder in which a cluster runs.
    pub(crate) fn with_cluster() -> Folder {
        let folder = Folder::new();
        let up = folder.bowline(&["up", "--detach"]);
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn bowline(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
        command.args(arguments).args((arguments[0] == "up").then(|| self.ports.option()));
        command.arg("--data-dir").arg(self.path()).output().expect("it starts")
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

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
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

/// Whether a program can be started.
pub(crate) fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
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

/// A program that goes on until it is ended, and what it has said so far.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    out: Arc<Mutex<Vec<u8>>>,
    err: Arc<Mutex<Vec<u8>>>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Running {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let out = gathered(child.stdout.take().expect("it is piped"));
        let err = gathered(child.stderr.take().expect("it is piped"));
        Running { stdin: child.stdin.take(), child, out, err }
    }

    pub(crate) fn out(&self) -> String {
        String::from_utf8_lossy(&self.out.lock().expect("nobody panics")).into_owned()
    }

    pub(crate) fn err(&self) -> String {
        String::from_utf8_lossy(&self.err.lock().expect("nobody panics")).into_owned()
    }

    /// Waits until this holds for what it has printed, and for what it has said on standard error.
    pub(crate) fn waits_for(&self, what: &str, holds: impl Fn(&str, &str) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds(&self.out(), &self.err()) {
            assert!(Instant::now() < until, "{what}: {:?}, {:?}", self.out(), self.err());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until it has printed this, and nothing else.
    pub(crate) fn prints(&self, text: &str) {
        self.waits_for(&format!("it has not printed {text:?}"), |out, _| out == text);
    }

    pub(crate) fn types(&mut self, text: &str) {
        self.stdin.as_mut().expect("its input is open").write_all(text.as_bytes()).expect("it reads");
    }

    /// Ends its input.
    pub(crate) fn ends_input(&mut self) {
        self.stdin = None;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is a child") {
                return status;
            }
            assert!(Instant::now() < until, "it goes on: {:?}, {:?}", self.out(), self.err());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended already needs no signal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a pipe has given so far.
fn gathered(mut pipe: impl Read + Send + 'static) -> Arc<Mutex<Vec<u8>>> {
    let all: Arc<Mutex<Vec<u8>>> = Arc::default();
    let gathered = Arc::clone(&all);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = pipe.read(&mut buffer) {
            all.lock().expect("nobody panics").extend(&buffer[..read]);
        }
    });
    gathered
}

/// Members that are started one by one, each by a shell that sets something up before.
pub(crate) struct Members {
    folder: tempfile::TempDir,
    pub(crate) client_ports: Vec<u16>,
    initial_cluster: String,
    _ports: Ports,
}

impl Members {
    pub(crate) fn new(count: usize) -> Members {
        let ports = Ports::reserve();
        let mut client_ports: Vec<u16> = (ports.first..).take(2 * count).collect();
        let peer_ports = client_ports.split_off(count);
        let places = (1..).zip(peer_ports).map(|(id, port)| format!("{id}=http://127.0.0.1:{port}"));
        let initial_cluster = places.collect::<Vec<_>>().join(",");
        Members { folder: tempfile::tempdir().expect("a folder"), client_ports, initial_cluster, _ports: ports }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts a member after `setup`: `ulimit -n 64`, say.
    pub(crate) fn start(&self, id: usize, setup: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", &format!(r#"{setup}; exec "$0" "$@""#), env!("CARGO_BIN_EXE_bowline"), "serve"]);
        // Members must not outlive a test that fails.
        self.start_program(id, command.arg("--stop-at-eof"))
    }

    /// What a member is told, by the keys of a settings file.
    pub(crate) fn settings(&self, id: usize) -> [(&'static str, String); 4] {
        [
            ("id", id.to_string()),
            ("initial_cluster", self.initial_cluster.clone()),
            ("listen_client", format!("127.0.0.1:{}", self.client_ports[id - 1])),
            ("data_dir", self.folder.path().join(format!("member-{id}")).display().to_string()),
        ]
    }

    /// Starts a program as a member. It has its settings in its environment, and stops when its input ends.
    pub(crate) fn start_program(&self, id: usize, command: &mut Command) -> Process {
        let variable = |key: &str| format!("BOWLINE_{}", key.to_ascii_uppercase());
        command.envs(self.settings(id).map(|(key, value)| (variable(key), value)));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let said: Arc<Mutex<String>> = Arc::default();
        let (stderr, heard) = (child.stderr.take().expect("it is piped"), Arc::clone(&said));
        let listener = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                heard.lock().expect("nobody panics").push_str(&format!("{line}\n"));
            }
        });
        Process { child, said, listener: Some(listener) }
    }
}

/// A member's process.
pub(crate) struct Process {
    child: Child,
    said: Arc<Mutex<String>>,
    listener: Option<JoinHandle<()>>,
}

impl Process {
    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().expect("nobody panics").clone()
    }

    /// Waits until it has said this.
    pub(crate) fn says(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.said().contains(text) {
            let runs = self.runs();
            if !runs && let Some(listener) = self.listener.take() {
                // It may have said it just before it ended.
                listener.join().expect("it does not panic");
                continue;
            }
            assert!(runs && Instant::now() < until, "it has not said {text:?}: {}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().expect("it is a child").is_none()
    }

    /// Ends it: in good order, or as if it had lost its power.
    pub(crate) fn end(mut self, in_good_order: bool) {
        if in_good_order {
            drop(self.child.stdin.take());
            assert_eq!(self.code(), Some(0), "{}", self.said());
        }
    }

    /// Its exit code, once it has ended.
    pub(crate) fn code(&mut self) -> Option<i32> {
        self.child.wait().expect("it is a child").code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already needs no signal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
