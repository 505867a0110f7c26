//! Our server beside a real etcd: the same random requests, answer by answer.
//!
//! Needs an etcd: `BOWLINE_CHECKLIST_ETCD=/usr/bin/etcd`, or one on the path; without one there is nothing to
//! compare, and it says so. `BOWLINE_ORACLE_STEPS` (default 1,000) and `BOWLINE_ORACLE_SEED` (default 1) choose the
//! run; what differs is told with both.

mod answers;
mod draw;

#[path = "../cluster/harness.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod cluster;
#[path = "../checklist/etcd.rs"]
#[allow(dead_code, reason = "not all of it is needed here")]
mod etcd;

use std::path::PathBuf;
use std::time::Duration;

use answers::{Asked, Outcome, ask};
use cluster::Cluster;
use draw::{Draw, Request};
use etcd::Etcd;
use tonic::Code;

/// Steps between two looks at the checksums.
const HASH_EVERY: u64 = 50;

/// The program that the environment names, or else the one on the path.
fn find_etcd() -> Option<PathBuf> {
    if let Some(program) = std::env::var_os("BOWLINE_CHECKLIST_ETCD").filter(|program| !program.is_empty()) {
        return Some(program.into());
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join("etcd")).find(|file| file.is_file())
}

fn number(variable: &str, default: u64) -> u64 {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty());
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}; allowed: a number")))
}

/// Where several operations of a transaction can't be done, etcd 3.4 names the first put of them before any range;
/// since 3.6, and here, the first one is named.
fn is_another_order_of_checks(request: &Request, ours: &Outcome, theirs: &Outcome) -> bool {
    let (Request::Txn(_), Err((our_code, _)), Err((_, their_text))) = (request, ours, theirs) else { return false };
    let of_a_put = ["etcdserver: key not found", "etcdserver: requested lease not found"];
    *our_code == Code::OutOfRange && of_a_put.contains(&their_text.as_str())
}

#[tokio::test]
async fn every_answer_is_that_of_a_real_etcd() {
    let Some(program) = find_etcd() else {
        eprintln!("skipped: there is no etcd on the path, and BOWLINE_CHECKLIST_ETCD names none");
        return;
    };
    let (seed, steps) = (number("BOWLINE_ORACLE_SEED", 1), number("BOWLINE_ORACLE_STEPS", 1_000));
    let again = format!("again: BOWLINE_ORACLE_SEED={seed} BOWLINE_ORACLE_STEPS={steps}");
    let theirs = Etcd::start(&program, &[]).await;
    let cluster = Cluster::start(3, &[]);
    cluster.leader().await;
    // One that follows has a longer way to go for each answer.
    let follower = cluster.follower().await;
    let url = |id| format!("http://{}", cluster.server(id).client_address());
    let (ours, theirs) = (Asked::connect(&url(follower)).await, Asked::connect(theirs.url()).await.keeping(theirs));
    let is_3_4 = theirs.version().await.starts_with("3.4.");
    let mut draw = Draw::new(seed);
    let (mut refused, mut hashes) = (0_u64, 0_u64);
    for step in 1..=steps {
        let hash_now = step % HASH_EVERY == 0 || step == steps;
        let request = if hash_now { draw.hash() } else { draw.request() };
        let (our_answer, mut their_answer) = tokio::join!(ask(&ours, &request), ask(&theirs, &request));
        for _ in 0..40 {
            if our_answer == their_answer || !hash_now {
                break;
            }
            // Their compaction removes in the background, and their checksum may tell how far it went.
            tokio::time::sleep(Duration::from_millis(50)).await;
            their_answer = ask(&theirs, &request).await;
        }
        if our_answer != their_answer && !(is_3_4 && is_another_order_of_checks(&request, &our_answer, &their_answer)) {
            let report = format!("step {step}: {request:?}\n\nours: {our_answer:?}\n\netcd: {their_answer:?}");
            // Large values are all alike.
            let report = report.split(&"v".repeat(20)).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("…");
            panic!("{report}\n\nrevision {}, compacted {}; {again}", draw.revision(), draw.compacted());
        }
        refused += u64::from(our_answer.is_err());
        hashes += u64::from(hash_now);
        draw.learn(&request, &our_answer);
    }
    // Every member has the same history.
    for id in 1..=3 {
        let member = Asked::connect(&url(id)).await;
        member.read_something().await;
        let whole = Request::Hash(draw.revision());
        assert_eq!(ask(&member, &whole).await, ask(&theirs, &whole).await, "member {id}; {again}");
    }
    let (revision, compacted) = (draw.revision(), draw.compacted());
    assert!(steps < 500 || (refused > steps / 100 && revision > 100 && compacted > 0), "it is a run of some interest");
    println!(
        "seed {seed}: {steps} requests, {refused} of them refused, {hashes} checksums, revision {revision}, \
         compacted {compacted}: all answers are the same"
    );
}
