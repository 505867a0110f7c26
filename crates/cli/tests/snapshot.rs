//! Backups: `bowline snapshot`, alone and together with etcd's tools.

#[path = "support/servers.rs"]
mod servers;
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use bowline_api::etcdserverpb as pb;
use pb::maintenance_server::{Maintenance, MaintenanceServer};
use serde_json::Value;
use servers::{Place, Server, is_installed};
use support::{Said, run};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// Writes a bit of everything: leases, history, deletions, transactions, a compaction.
async fn fill(server: &Server) {
    let mut client = server.client();
    for number in 0..30 {
        let (key, value) = (format!("k{}", number % 7), format!("value {number} ").repeat(number));
        client.put(key, value).await.expect("it serves");
    }
    client.lease_grant(600, 7).await.expect("it serves");
    client.lease_grant(6_000, 0x7fff_ffff_ffff_fff0).await.expect("it serves");
    for (key, id) in [("leased", 7), ("k1", 7), ("long", 0x7fff_ffff_ffff_fff0)] {
        let lease = id.to_string();
        let put = pb::PutRequest { key: key.into(), value: lease.into(), lease: id, ..pb::PutRequest::default() };
        client.put_request(put).await.expect("it serves");
    }
    client.delete("k2", "k4").await.expect("it serves");
    client.compact(20, true).await.expect("it serves");
    client.put("k2", "again").await.expect("it serves");
    client.put(vec![0, 0xff], vec![0xfe; 40_000]).await.expect("it serves");
    client.delete("k5", "").await.expect("it serves");
}

fn bowline(words: &[&str]) -> Said {
    run(Command::new(env!("CARGO_BIN_EXE_bowline")).args(words), b"")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("it is text")
}

/// Restores a file for one member.
fn restore(file: &Path, folder: &Path, name: &str, cluster: &str, options: &[&str]) -> Said {
    let mut words = vec!["snapshot", "restore", text(file), "--data-dir", text(folder), "--name", name];
    words.extend(["--initial-cluster", cluster]);
    words.extend(options);
    bowline(&words)
}

#[track_caller]
fn restored(place: &Place, file: &Path, folder: &str, name: &str, cluster: &str, options: &[&str]) {
    let said = restore(file, &place.path(folder), name, cluster, options);
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[track_caller]
fn refused(said: &Said, because: &str) {
    assert!(said.code == Some(2) && said.err.contains(because), "{because:?}: {said:?}");
}

#[tokio::test]
async fn a_cluster_of_three_is_made_from_a_backup_with_all_that_was_in_it() {
    let place = Place::new();
    let old = place.start("old", "old", &place.cluster(&["old"], 0), 1);
    fill(&old).await;
    let (file, before) = (place.path("backup.db"), old.seen().await);
    old.save(&file);
    if is_installed("etcdctl") {
        let other = place.path("etcdctl.db");
        let said = old.etcdctl(&["snapshot", "save", text(&other)]);
        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(fs::read(&file).expect("it is there") == fs::read(other).expect("it is there"), "both saved the same");
    }
    drop(old);
    let (names, folders) = (["a", "b", "c"], ["d1", "d2", "d3"]);
    let cluster = place.cluster(&names, 2);
    for (name, folder) in names.into_iter().zip(folders) {
        restored(&place, &file, folder, name, &cluster, &["--keep-revisions", "--cluster-token", "new"]);
    }
    let without_token = place.begin("a", "d1", &cluster, 5);
    let start = |number: usize| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
        command.args(["serve", "--name", names[number], "--initial-cluster", &cluster, "--cluster-token", "new"]);
        command.args(["--initial-cluster-state", "existing"]);
        place.start_with(&mut command, folders[number], u16::try_from(number).expect("small") + 5)
    };
    assert!(!without_token.ends_well(), "it belongs to another cluster");
    let mut members: Vec<Server> = (0..3).map(start).collect();
    for member in &members {
        member.serves();
        assert_eq!(member.seen().await, before);
    }
    // It goes on as any cluster does, also after a crash of one of its members.
    members[0].does(&["put", "new", "value"]);
    members.remove(2);
    members[1].does(&["put", "newer", "value"]);
    members.push(start(2));
    members[2].serves();
    let endpoints = members.iter().map(|member| member.endpoint.clone()).collect::<Vec<_>>().join(",");
    let compared: Value =
        serde_json::from_str(&members[0].does(&["hashkv", "--json", "--endpoints", &endpoints])).expect("it is JSON");
    assert!(compared["same"] == true && compared["members"].as_array().map(Vec::len) == Some(3), "{compared}");
    assert_eq!(members[2].does(&["get", "newer"]), "value\n");
}

#[tokio::test]
async fn a_raised_revision_is_noticed_by_whoever_watched() {
    let place = Place::new();
    let old = place.start("old", "old", &place.cluster(&["old"], 0), 1);
    fill(&old).await;
    let (file, before) = (place.path("backup.db"), old.does(&["get", "--prefix", "", "--json"]));
    old.save(&file);
    drop(old);
    let cluster = place.cluster(&["new"], 2);
    restored(&place, &file, "new", "new", &cluster, &[]);
    let new = place.start("new", "new", &cluster, 3);
    let found = |text: &str| serde_json::from_str::<Value>(text).expect("it is JSON");
    let (before, after) = (found(&before), found(&new.does(&["get", "--prefix", "", "--json"])));
    assert_eq!(before["kvs"], after["kvs"]);
    let revision = before["revision"].as_i64().expect("a number") + 1_000_000_000;
    assert_eq!(after["revision"].as_i64(), Some(revision));
    let old_revision = (revision - 1).to_string();
    for words in [&["get", "k1", "--rev", &old_revision][..], &["watch", "k1", "--rev", "30"]] {
        let said = new.ask(words);
        assert!(said.code == Some(1) && said.err.contains("compacted"), "{words:?}: {said:?}");
    }
    new.does(&["put", "k1", "next"]);
    assert!(new.does(&["get", "k1", "--json"]).contains(&format!("\"mod_revision\":{}", revision + 1)));

    // Anybody who restores the same file gets the same revisions.
    restored(&place, &file, "small", "new", &cluster, &["--bump-revision", "5"]);
    drop(new);
    let small = place.start("new", "small", &cluster, 3);
    assert_eq!(found(&small.does(&["get", "k1", "--json"]))["revision"].as_i64(), Some(revision - 999_999_995));
}

#[tokio::test]
async fn what_can_not_be_restored_is_refused_and_nothing_is_changed() {
    let place = Place::new();
    let old = place.start("old", "old", &place.cluster(&["old"], 0), 1);
    fill(&old).await;
    let file = place.path("backup.db");
    old.save(&file);
    let again = old.ask(&["snapshot", "save", text(&file)]);
    refused(&again, "which exists already; choose another name, or replace it with --force");
    old.does(&["snapshot", "save", text(&file), "--force"]);
    assert_eq!(bowline(&["snapshot", "status", text(&file)]).code, Some(0));
    let whole = fs::read(&file).expect("it is there");
    let (cluster, folder) = (place.cluster(&["a"], 2), place.path("new"));

    let wrong = place.path("wrong.db");
    let try_with = |bytes: &[u8], options: &[&str]| {
        fs::write(&wrong, bytes).expect("there is room");
        let said = restore(&wrong, &folder, "a", &cluster, options);
        assert!(!folder.exists(), "{said:?}");
        said
    };
    for bit in (0..whole.len() * 8).step_by(whole.len() * 8 / 23).chain([whole.len() * 8 - 1]) {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let damaged = "is damaged: the SHA-256 at its end is not that of its content; use another copy";
        refused(&try_with(&flipped, &[]), damaged);
        refused(&bowline(&["snapshot", "status", text(&wrong)]), damaged);
    }
    for length in [0, 31, 32, 512, 4_096 + 33, whole.len() - 1] {
        refused(&try_with(&whole[..length], &[]), text(&wrong));
    }
    let (body, _) = whole.split_at(whole.len() - 32);
    refused(&try_with(body, &[]), "has no checksum, so damage would not be noticed");
    refused(&try_with(&body[..body.len() - 4_096], &["--skip-hash-check"]), "pages of 4096");
    refused(&try_with(&whole, &["--keep-revisions", "--bump-revision", "5"]), "cannot be used with");
    refused(&restore(&file, &folder, "b", &cluster, &[]), "--name");
    refused(&restore(&place.path("missing"), &folder, "a", &cluster, &[]), "No such file");

    let said = restore(&file, &folder, "a", &cluster, &["--dry-run"]);
    assert!(said.code == Some(0) && said.text().starts_with("would restore 8 keys at revision 10000000"), "{said:?}");
    assert!(!folder.exists());
    fs::create_dir(&folder).expect("there is room");
    fs::write(folder.join("precious"), "data").expect("there is room");
    refused(&restore(&file, &folder, "a", &cluster, &[]), "which is not empty; allowed: an empty folder");
    assert_eq!(fs::read_dir(&folder).expect("it is there").count(), 1);
    fs::remove_file(folder.join("precious")).expect("it is there");
    restored(&place, &file, "new", "a", &cluster, &[]);
    let names = fs::read_dir(place.path("")).expect("it is there").map(|entry| entry.expect("it is there").file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().ends_with(".part")), "no unfinished file is left");
}

#[tokio::test]
async fn a_state_goes_from_etcd_to_us_and_back() {
    if !is_installed("etcd") || !is_installed("etcdctl") {
        eprintln!("skipped: etcd is not installed (apt-get install etcd-server etcd-client)");
        return;
    }
    let place = Place::new();
    let first = place.start_etcd("first", "first", &place.cluster(&["first"], 0), 1);
    fill(&first).await;
    let (from_etcd, before) = (place.path("etcd.db"), first.seen().await);
    let said = first.etcdctl(&["snapshot", "save", text(&from_etcd)]);
    assert_eq!(said.code, Some(0), "{said:?}");
    same_status(&from_etcd);
    drop(first);

    let cluster = place.cluster(&["ours"], 2);
    restored(&place, &from_etcd, "ours", "ours", &cluster, &["--keep-revisions"]);
    let ours = place.start("ours", "ours", &cluster, 3);
    assert_eq!(ours.seen().await, before);
    // The file of a database, without a checksum.
    let database = place.path("first/member/snap/db");
    refused(&restore(&database, &place.path("copy"), "ours", &cluster, &[]), "--skip-hash-check");
    restored(&place, &database, "copy", "ours", &cluster, &["--keep-revisions", "--skip-hash-check"]);
    let from_us = place.path("ours.db");
    let said = ours.etcdctl(&["snapshot", "save", text(&from_us)]);
    assert_eq!(said.code, Some(0), "{said:?}");
    same_status(&from_us);
    drop(ours);
    let copy = place.start("ours", "copy", &cluster, 3);
    assert_eq!(copy.seen().await, before);
    drop(copy);

    let (tool, cluster) = (if is_installed("etcdutl") { "etcdutl" } else { "etcdctl" }, place.cluster(&["last"], 4));
    let peer = cluster.split_once('=').expect("a name and an address").1;
    let mut command = Command::new(tool);
    command.env("ETCDCTL_API", "3").args(["snapshot", "restore", text(&from_us), "--name", "last"]);
    command.args(["--initial-cluster", &cluster, "--initial-advertise-peer-urls", peer]);
    let said = run(command.arg("--data-dir").arg(place.path("last")), b"");
    assert_eq!(said.code, Some(0), "{said:?}");
    let last = place.start_etcd("last", "last", &cluster, 5);
    assert_eq!(last.seen().await, before);
    last.does(&["put", "k1", "goes on"]);
}

/// A member that sends these blobs as its snapshot, and has no leader.
struct Fake(Vec<&'static [u8]>);

type Answer<T> = Result<Response<T>, Status>;

fn nobody_asks<T>() -> Answer<T> {
    Err(Status::unimplemented("nobody asks for this"))
}

#[tonic::async_trait]
impl Maintenance for Fake {
    type SnapshotStream = tokio_stream::Iter<std::vec::IntoIter<Result<pb::SnapshotResponse, Status>>>;

    async fn snapshot(&self, _: Request<pb::SnapshotRequest>) -> Answer<Self::SnapshotStream> {
        let blob = |blob: &&'static [u8]| match **blob {
            // It ends with an error.
            [] => Err(Status::unavailable("the member is gone")),
            ref blob => Ok(pb::SnapshotResponse { blob: blob.to_vec().into(), ..pb::SnapshotResponse::default() }),
        };
        Ok(Response::new(tokio_stream::iter(self.0.iter().map(blob).collect::<Vec<_>>())))
    }

    async fn status(&self, _: Request<pb::StatusRequest>) -> Answer<pb::StatusResponse> {
        nobody_asks()
    }

    async fn hash_kv(&self, _: Request<pb::HashKvRequest>) -> Answer<pb::HashKvResponse> {
        nobody_asks()
    }

    async fn alarm(&self, _: Request<pb::AlarmRequest>) -> Answer<pb::AlarmResponse> {
        nobody_asks()
    }

    async fn defragment(&self, _: Request<pb::DefragmentRequest>) -> Answer<pb::DefragmentResponse> {
        nobody_asks()
    }

    async fn hash(&self, _: Request<pb::HashRequest>) -> Answer<pb::HashResponse> {
        nobody_asks()
    }

    async fn move_leader(&self, _: Request<pb::MoveLeaderRequest>) -> Answer<pb::MoveLeaderResponse> {
        nobody_asks()
    }

    async fn downgrade(&self, _: Request<pb::DowngradeRequest>) -> Answer<pb::DowngradeResponse> {
        nobody_asks()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_does_not_arrive_whole_leaves_no_file() {
    let place = Place::new();
    let file = place.path("backup.db");
    for (blobs, because) in [
        (vec![], "damaged or cut off on its way"),
        (vec![&[7; 512][..], &[7; 512]], "damaged or cut off on its way"),
        (vec![&[7; 512][..], &[7; 32]], "damaged or cut off on its way"),
        (vec![&[7; 512][..], &[]], "the member is gone"),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let endpoint = listener.local_addr().expect("it is bound").to_string();
        let server = tonic::transport::Server::builder().add_service(MaintenanceServer::new(Fake(blobs)));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let words = ["snapshot", "save", text(&file), "--endpoints", &endpoint].map(str::to_owned);
        let saved = tokio::task::spawn_blocking(move || bowline(&words.each_ref().map(String::as_str)));
        let said = saved.await.expect("it ends");
        assert!(said.code == Some(1) && said.err.contains(because), "{because:?}: {said:?}");
        assert!(said.err.contains("has no leader, so the snapshot may lack what was acknowledged last"), "{said:?}");
        assert_eq!(fs::read_dir(place.path("")).expect("it is there").count(), 0, "no part of it is left");
    }
}

/// Both tools say the same about a file.
#[track_caller]
fn same_status(file: &Path) {
    let mut etcdctl = Command::new("etcdctl");
    let said = run(etcdctl.env("ETCDCTL_API", "3").args(["snapshot", "status", text(file), "-w", "json"]), b"");
    let theirs: Value = serde_json::from_slice(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    let said = bowline(&["snapshot", "status", text(file), "--json"]);
    let ours: Value = serde_json::from_slice(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    let hash = format!("{:08x}", theirs["hash"].as_u64().expect("a number"));
    let (revision, keys, size) = (&theirs["revision"], &theirs["totalKey"], &theirs["totalSize"]);
    assert_eq!(
        [&ours["hash"], &ours["revision"], &ours["total_keys"], &ours["total_size"]],
        [&Value::from(hash), revision, keys, size]
    );
}
