//! Clients that open more connections than a member has file descriptors for.

mod support;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use bowline_api::etcdserverpb as pb;
use pb::kv_client::KvClient;
use support::{Members, PATIENCE, Process};
use tonic::transport::Channel;

async fn client(members: &Members, id: usize) -> KvClient<Channel> {
    let url = format!("http://127.0.0.1:{}", members.client_ports[id - 1]);
    KvClient::connect(url).await.expect("it listens")
}

fn put(number: u32) -> pb::PutRequest {
    let value = vec![b'v'; 1_000_000];
    pb::PutRequest { key: format!("k/{number}").into(), value: value.into(), ..pb::PutRequest::default() }
}

/// So many connections that are silent. Those that the member does not accept wait in the system's queue.
fn idle(members: &Members, id: usize, count: usize) -> Vec<TcpStream> {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], members.client_ports[id - 1]));
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(500)).ok();
    (0..count).map_while(|_| connect()).collect()
}

/// All clients of these tests have one address.
const ONE_ADDRESS: &str = "export BOWLINE_MAX_CONNECTIONS_PER_ADDRESS=1000";

fn pauses(member: &Process) -> usize {
    member.said().matches("are in use; new ones wait").count()
}

#[tokio::test]
async fn a_member_with_64_descriptors_and_50_idle_clients_goes_on_writing() {
    let members = Members::new(1);
    let mut member = members.start(1, &format!("ulimit -n 64; {ONE_ADDRESS}"));
    member.says("ready to serve client requests");
    let mut earlier = client(&members, 1).await;
    let idle = idle(&members, 1, 50);
    member.says("all 31 connections of clients are in use; new ones wait limit=\"64 open files\"");
    for number in 0..20 {
        earlier.put(put(number)).await.unwrap_or_else(|why| panic!("put {number}: {why}: {}", member.said()));
    }
    assert!(member.runs(), "{}", member.said());
    assert_eq!(pauses(&member), 1, "{}", member.said());
    drop(idle);
    let count = pb::RangeRequest { key: "k/".into(), range_end: "k0".into(), count_only: true, ..Default::default() };
    let found = client(&members, 1).await.range(count).await.expect("there is room again").into_inner();
    assert_eq!(found.count, 20);
}

#[tokio::test]
async fn three_members_with_256_descriptors_and_300_idle_clients_each_keep_their_leader() {
    let members = Members::new(3);
    // Timeouts that a busy machine keeps: an election here would have another cause.
    let setup = format!("ulimit -n 256; export BOWLINE_ELECTION_MIN=2s BOWLINE_ELECTION_MAX=4s; {ONE_ADDRESS}");
    let mut all: Vec<Process> = (1..=3).map(|id| members.start(id, &setup)).collect();
    all.iter_mut().for_each(|member| member.says("ready to serve client requests"));
    let mut earlier = Vec::new();
    for id in 1..=3 {
        earlier.push(client(&members, id).await);
    }
    let _idle: Vec<_> = (1..=3).map(|id| idle(&members, id, 300)).collect();
    all.iter_mut().for_each(|member| member.says("all 128 connections of clients are in use"));
    for number in 0..20 {
        for (client, id) in earlier.iter_mut().zip(1..) {
            client.put(put(number)).await.unwrap_or_else(|why| panic!("put {number} at {id}: {why}"));
        }
    }
    for member in &mut all {
        assert!(member.runs(), "{}", member.said());
        assert!(!member.said().contains("lost the leader"), "{}", member.said());
        assert_eq!(pauses(member), 1, "{}", member.said());
    }
}

/// Whatever has taken them: the limit is lowered to the standard streams.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_member_without_any_free_descriptor_refuses_writes_answers_reads_and_recovers() {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let members = Members::new(1);
    let mut member = members.start(1, ":");
    member.says("ready to serve client requests");
    let mut earlier = client(&members, 1).await;
    earlier.put(put(0)).await.expect("written");
    let pid = member.pid();
    // It has inherited this process's.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit_to = |current| {
        let limit = prlimit(Pid::from_raw(pid.cast_signed()), Resource::Nofile, Rlimit { current, maximum });
        limit.expect("its limit may be changed")
    };
    let before = limit_to(Some(3));
    // The segment in use takes some more, and the one in reserve; then another one is needed.
    let mut number = 0;
    let refused = loop {
        number += 1;
        assert!(number < 100, "it is never noticed: {}", member.said());
        match earlier.put(put(number)).await {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted, "{refused}");
    member.says("refusing writes for now: ");
    let get = pb::RangeRequest { key: "k/0".into(), ..Default::default() };
    assert_eq!(earlier.range(get).await.expect("reads go on").into_inner().count, 1);
    limit_to(before.current);
    let until = Instant::now() + PATIENCE;
    while let Err(status) = earlier.put(put(number)).await {
        assert!(Instant::now() < until && member.runs(), "{status}: {}", member.said());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    member.says("accepting writes again");
}

/// Such as a load balancer's that opens connections in advance, or a program with a leak.
#[tokio::test]
async fn the_number_of_clients_can_be_bounded_by_a_setting() {
    let members = Members::new(1);
    let mut member = members.start(1, "export BOWLINE_MAX_CONNECTIONS=2");
    member.says("ready to serve client requests");
    let mut earlier = client(&members, 1).await;
    let _idle = idle(&members, 1, 3);
    member.says("all 2 connections of clients are in use; new ones wait limit=\"--max-connections\"");
    earlier.put(put(1)).await.expect("written");
}

#[test]
fn a_limit_that_is_too_low_is_refused_with_the_way_out() {
    let members = Members::new(3);
    let started = Instant::now();
    let mut member = members.start(1, "ulimit -n 64");
    assert_eq!(member.code(), Some(1));
    member_said(&member, "the limit of open files is 64, but this member needs 96: raise it with ulimit -n");
    assert!(started.elapsed() < PATIENCE);
}

/// What it said before it ended comes a little later.
fn member_said(member: &Process, text: &str) {
    let until = Instant::now() + PATIENCE;
    while !member.said().contains(text) {
        assert!(Instant::now() < until, "it has not said {text:?}: {}", member.said());
        std::thread::sleep(Duration::from_millis(5));
    }
}
