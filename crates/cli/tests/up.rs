//! `bowline up` and `bowline down`, with real processes: kill -9 included.

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use pb::kv_client::KvClient;
use support::{Folder, Ports};
use tonic::transport::Channel;

async fn client(folder: &Folder, place: usize) -> KvClient<Channel> {
    let port = folder.number(&format!("/members/{place}/client_port"));
    KvClient::connect(format!("http://127.0.0.1:{port}")).await.expect("it listens")
}

fn put(number: u32) -> pb::PutRequest {
    pb::PutRequest { key: format!("k/{number:03}").into(), value: "v".into(), ..pb::PutRequest::default() }
}

async fn count(client: &mut KvClient<Channel>) -> i64 {
    let range =
        pb::RangeRequest { key: "k/".into(), range_end: "k0".into(), count_only: true, ..pb::RangeRequest::default() };
    client.range(range).await.expect("read").into_inner().count
}

#[tokio::test]
async fn a_cluster_survives_kill_9_of_its_leader_and_a_restart() {
    let folder = Folder::new();
    let up = folder.bowline(&["up", "--detach"]);
    let said = String::from_utf8_lossy(&up.stdout);
    assert!(up.status.success(), "{said}{}", String::from_utf8_lossy(&up.stderr));
    for part in ["3 members, ready after", "endpoints  127.0.0.1:", "put hello world", "bowline down"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    let twice = folder.bowline(&["up", "--detach"]);
    assert_eq!(twice.status.code(), Some(2), "it runs already");

    let leader: usize = said
        .lines()
        .find_map(|line| line.trim().strip_prefix("leader     member "))
        .and_then(|id| id.parse().ok())
        .expect("the leader is told");
    let mut survivor = client(&folder, leader % 3).await;
    for number in 0..50 {
        survivor.put(put(number)).await.expect("written");
    }
    let pid = folder.number(&format!("/pids/{}", leader - 1));
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill runs").success());
    let (killed_at, mut acknowledged) = (Instant::now(), 50);
    let mut took = None;
    for number in 50..60 {
        if survivor.put(put(number)).await.is_ok() {
            took.get_or_insert(killed_at.elapsed());
            acknowledged += 1;
        }
    }
    let took = took.expect("writes go on");
    assert!(took < Duration::from_secs(5), "writes went on after {took:?}");
    assert!(count(&mut survivor).await >= acknowledged);

    let down = folder.bowline(&["down"]);
    assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
    let again = folder.bowline(&["up", "--detach"]);
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    for place in 0..3 {
        assert!(count(&mut client(&folder, place).await).await >= acknowledged, "at member {}", place + 1);
    }
}

#[test]
fn bad_settings_are_named_with_what_is_allowed() {
    let serve = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_bowline")).arg("serve").args(arguments).output();
        let output = output.expect("it starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = serve(&["--initial-cluster", "a=127.0.0.1:1,b=127.0.0.1:2"]);
    let which = "error: --name is \"default\"; allowed: a member of --initial-cluster (a, b)\n";
    assert_eq!((code, said.as_str()), (Some(2), which));
    let (code, said) = serve(&["--id", "1", "--initial-cluster", "1=127.0.0.1:1", "--heartbeat", "soon"]);
    assert_eq!(code, Some(2));
    assert_eq!(said, "error: --heartbeat is \"soon\"; allowed: a time from 5ms to 60s, such as 300ms\n");
    let nothing = Folder::new();
    let down = nothing.bowline(&["down"]);
    assert_eq!(down.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&down.stderr).contains("there is no cluster in"));
}

#[test]
fn the_line_that_stops_a_cluster_can_be_pasted_into_a_shell() {
    let folder = tempfile::tempdir().expect("a folder");
    let ports = Ports::reserve();
    let data = folder.path().join("it's a \"$HOME\" `of` mine");
    let up = |nodes: &str| {
        let mut up = Command::new(env!("CARGO_BIN_EXE_bowline"));
        up.args(["up", "--detach", "--nodes", nodes, &ports.option(), "--data-dir"])
            .arg(&data)
            .output()
            .expect("it starts")
    };
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_bowline")).parent().expect("it is in a folder");
    let paste = |line: &str| {
        let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap_or_default());
        let shell = Command::new("sh").args(["-c", line]).env("PATH", path).output().expect("sh is there");
        (shell.status.code(), String::from_utf8_lossy(&shell.stdout).into_owned())
    };
    let stopped = (Some(0), format!("stopped; the data is in {}\n", data.display()));
    let first = up("1");
    let said = String::from_utf8_lossy(&first.stdout).into_owned();
    let line = said.lines().find_map(|line| line.strip_prefix("  stop       ")).expect("it is told");
    assert_eq!(paste(line), stopped, "{line}");
    // An error that names the command does so, too.
    assert!(up("1").status.success());
    let twice = String::from_utf8_lossy(&up("1").stderr).into_owned();
    let line = twice.trim_end().split_once("to stop it: ").expect("it is told").1;
    assert_eq!(paste(line), stopped, "{line}");
}
