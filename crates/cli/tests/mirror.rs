//! `bowline mirror`: between two clusters of ours, and between ours and a real etcd.

#[path = "support/servers.rs"]
mod servers;
mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use bowline_api::mvccpb::KeyValue;
use rustix::process::Signal;
use serde_json::Value;
use servers::{Place, Server, is_installed};
use support::{PATIENCE, Running, run};

fn command(from: &Server, to: &Server, options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
    command.args(["mirror", &from.endpoint, &to.endpoint, "--json"]).args(options);
    command
}

fn mirror(from: &Server, to: &Server, options: &[&str]) -> Running {
    Running::start(&mut command(from, to, options))
}

fn stop(mut mirror: Running) {
    mirror.signal(Signal::KILL);
    mirror.wait();
}

/// The lines that a mirror has reported so far.
fn reports(mirror: &Running) -> Vec<Value> {
    let err = mirror.err();
    // The last line may be incomplete.
    let lines = err.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

async fn all(server: &Server, prefix: &str) -> Vec<KeyValue> {
    let key = if prefix.is_empty() { "\0".into() } else { prefix.to_owned() };
    let range_end = bowline_kv::store::prefix_end(prefix.as_bytes());
    let request = pb::RangeRequest { key: key.into(), range_end, ..pb::RangeRequest::default() };
    let kvs = server.client().range(request).await.expect("it serves").kvs;
    kvs.into_iter().filter(|kv| !kv.key.starts_with(b"\0bowline-mirror")).collect()
}

/// Waits until the destination holds what the source holds.
async fn becomes_equal(from: (&Server, &str), to: (&Server, &str), mirror: &Running) {
    let pairs = |kvs: Vec<KeyValue>, prefix: &str| -> Vec<(Vec<u8>, Vec<u8>)> {
        kvs.into_iter().map(|kv| (kv.key[prefix.len()..].to_vec(), kv.value.to_vec())).collect()
    };
    let until = Instant::now() + PATIENCE;
    loop {
        let wanted = pairs(all(from.0, from.1).await, from.1);
        let found = pairs(all(to.0, to.1).await, to.1);
        if wanted == found {
            return;
        }
        assert!(Instant::now() < until, "{} instead of {} keys: {}", found.len(), wanted.len(), mirror.err());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn fill(server: &Server, prefix: &str, keys: std::ops::Range<usize>) {
    let mut client = server.client();
    for number in keys {
        client.put(format!("{prefix}{number:04}"), format!("value {number}")).await.expect("it serves");
    }
}

fn two(place: &Place) -> (Server, Server) {
    let from = place.start("from", "from", &place.cluster(&["from"], 0), 1);
    (from, place.start("to", "to", &place.cluster(&["to"], 2), 3))
}

#[tokio::test]
async fn a_mirror_follows_and_goes_on_after_a_restart_where_it_was() {
    let place = Place::new();
    let (from, to) = two(&place);
    let options = ["--prefix", "app/", "--dest-prefix", "copy/"];
    fill(&from, "app/", 0..300).await;
    fill(&from, "other/", 0..3).await;
    fill(&to, "own/", 0..3).await;
    let mut client = from.client();
    for number in 0..4 {
        client.put(format!("app/large{number}"), vec![b'v'; 700_000]).await.expect("it serves");
    }
    let running = mirror(&from, &to, &options);
    let ends = ((&from, "app/"), (&to, "copy/"));
    becomes_equal(ends.0, ends.1, &running).await;
    assert_eq!((all(&to, "own/").await.len(), all(&to, "other/").await.len()), (3, 0));

    // A transaction stays one, and a lease is not mirrored.
    client.lease_grant(600, 7).await.expect("it serves");
    let leased = pb::PutRequest { key: "app/leased".into(), value: "v".into(), lease: 7, ..pb::PutRequest::default() };
    client.put_request(leased).await.expect("it serves");
    from.does(&["txn", "--then", "put app/a 1", "--then", "del app/0007", "--then", "put app/b 2"]);
    client.delete("app/0100", "app/0250").await.expect("it serves");
    becomes_equal(ends.0, ends.1, &running).await;
    let found = all(&to, "copy/").await;
    let of = |key: &str| found.iter().find(|kv| kv.key == key).expect("it is mirrored");
    assert_eq!(of("copy/a").mod_revision, of("copy/b").mod_revision);
    assert_eq!(of("copy/leased").lease, 0);
    running.waits_for("it is not behind", |_, _| {
        reports(&running).iter().any(|line| line["state"] == "following" && line["lag"] == 0)
    });
    stop(running);

    // What happens meanwhile is not lost, and nothing is copied again.
    fill(&from, "app/", 250..400).await;
    client.delete("app/0000", "app/0050").await.expect("it serves");
    let running = mirror(&from, &to, &options);
    becomes_equal(ends.0, ends.1, &running).await;
    let lines = reports(&running);
    assert!(lines.iter().all(|line| line["state"] != "copying"), "{lines:?}");

    // Either end may be away for a while.
    drop(to);
    fill(&from, "app/", 400..410).await;
    running.waits_for("it notices", |_, err| err.contains("trying again"));
    let to = place.start("to", "to", &place.cluster(&["to"], 2), 3);
    becomes_equal((&from, "app/"), (&to, "copy/"), &running).await;
    drop(from);
    running.waits_for("it notices", |_, err| err.contains("the source was lost"));
    let from = place.start("from", "from", &place.cluster(&["from"], 0), 1);
    fill(&from, "app/", 410..420).await;
    becomes_equal((&from, "app/"), (&to, "copy/"), &running).await;
    stop(running);
}

#[tokio::test]
async fn after_a_compaction_a_mirror_copies_again_and_deletes_what_is_gone() {
    let place = Place::new();
    let (from, to) = two(&place);
    fill(&from, "", 0..200).await;
    let ends = ((&from, ""), (&to, ""));
    let running = mirror(&from, &to, &[]);
    becomes_equal(ends.0, ends.1, &running).await;
    stop(running);
    let mut client = from.client();
    client.delete("0100", "0150").await.expect("it serves");
    fill(&from, "", 190..220).await;
    let revision = client.put("last", "write").await.expect("it serves");
    client.compact(revision, true).await.expect("it serves");
    let running = mirror(&from, &to, &[]);
    becomes_equal(ends.0, ends.1, &running).await;
    running.waits_for("it says so", |_, err| err.contains("has compacted the history that comes next; copying again"));
    // Only what differs was written: 20 new keys and the last one.
    running.waits_for("it tells what it wrote", |_, _| {
        reports(&running)
            .iter()
            .any(|line| line["state"] == "following" && line["puts"] == 21 && line["deletions"] == 50)
    });
    fill(&from, "later", 0..5).await;
    becomes_equal(ends.0, ends.1, &running).await;
    stop(running);
}

#[tokio::test]
async fn a_mirror_takes_no_place_that_is_not_its_own() {
    let place = Place::new();
    let (from, to) = two(&place);
    fill(&from, "a/", 0..20).await;
    fill(&to, "b/", 0..3).await;
    let refused = |from: &Server, to: &Server, options: &[&str], because: &str| {
        let said = run(&mut command(from, to, options), b"");
        assert!(said.code == Some(2) && said.err.contains(because), "{because:?}: {said:?}");
    };
    refused(&from, &from, &["--prefix", "a/", "--dest-prefix", "a/b/"], "FROM and TO are the same cluster");
    refused(&from, &to, &["--prefix", "a/", "--dest-prefix", "b/"], "TO has keys under --dest-prefix");
    assert_eq!(all(&to, "").await.len(), 3);
    let options = ["--prefix", "a/", "--dest-prefix", "b/", "--overwrite"];
    let running = mirror(&from, &to, &options);
    becomes_equal((&from, "a/"), (&to, "b/"), &running).await;
    running.waits_for("it follows", |_, err| err.contains("following"));
    refused(
        &from,
        &to,
        &["--prefix", "c/", "--dest-prefix", "b/"],
        "TO has the position of another source or --prefix",
    );
    refused(&from, &to, &["--prefix", "a/", "--dest-prefix", "b/", "--rev", "3"], "leave --rev out");

    // Of two mirrors to the same place, one gives up.
    let other = mirror(&from, &to, &options);
    other.waits_for("it follows", |_, err| err.contains("following"));
    let gave_up = |mirror: &Running| mirror.err().contains("is there another mirror to the same --dest-prefix?");
    let mut number = 20;
    while !gave_up(&running) && !gave_up(&other) {
        fill(&from, "a/", number..number + 1).await;
        number += 1;
        assert!(number < 2_000, "{} {}", running.err(), other.err());
    }
    let (mut loser, winner) = if gave_up(&running) { (running, other) } else { (other, running) };
    assert_eq!(loser.wait().code(), Some(1));
    becomes_equal((&from, "a/"), (&to, "b/"), &winner).await;
    stop(winner);

    // Without a copy, from a revision on.
    let later = from.client().put("a/later", "v").await.expect("it serves").to_string();
    let running = mirror(&from, &to, &["--prefix", "a/", "--dest-prefix", "d/", "--rev", &later]);
    let until = Instant::now() + PATIENCE;
    while all(&to, "d/").await.len() != 1 {
        assert!(Instant::now() < until, "{}", running.err());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop(running);
}

#[tokio::test]
async fn a_mirror_works_from_etcd_and_to_etcd() {
    if !is_installed("etcd") {
        eprintln!("skipped: etcd is not installed (apt-get install etcd-server)");
        return;
    }
    let place = Place::new();
    let etcd = place.start_etcd("etcd", "etcd", &place.cluster(&["etcd"], 0), 1);
    let ours = place.start("ours", "ours", &place.cluster(&["ours"], 2), 3);
    for (from, to, dest) in [(&etcd, &ours, "from-etcd/"), (&ours, &etcd, "from-us/")] {
        fill(from, "k/", 0..300).await;
        let options = ["--prefix", "k/", "--dest-prefix", dest];
        let running = mirror(from, to, &options);
        becomes_equal((from, "k/"), (to, dest), &running).await;
        let mut client = from.client();
        client.delete("k/0100", "k/0280").await.expect("it serves");
        fill(from, "k/", 290..310).await;
        becomes_equal((from, "k/"), (to, dest), &running).await;
        stop(running);
        fill(from, "k/", 0..20).await;
        let revision = client.delete_request(pb::DeleteRangeRequest { key: "k/0290".into(), ..Default::default() });
        let revision = revision.await.expect("it serves").header.expect("a header").revision;
        client.compact(revision, true).await.expect("it serves");
        let running = mirror(from, to, &options);
        becomes_equal((from, "k/"), (to, dest), &running).await;
        stop(running);
    }
}
