//! `hashkv` with members that differ, as real ones do only after an accident.

mod support;

use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};

use bowline_api::etcdserverpb as pb;
use pb::maintenance_server::{Maintenance, MaintenanceServer};
use serde_json::Value;
use support::{Said, run};
use tokio_stream::Empty;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// A member that has so many revisions.
struct Fake {
    id: u64,
    revision: AtomicI64,
    /// It gets so many more each time that somebody asks how it is.
    each_time: i64,
    hash: u32,
}

impl Fake {
    fn new(id: u64, revision: i64, hash: u32) -> Fake {
        Fake { id, revision: revision.into(), each_time: 0, hash }
    }

    fn header(&self) -> Option<pb::ResponseHeader> {
        let revision = self.revision.load(Ordering::SeqCst);
        Some(pb::ResponseHeader { member_id: self.id, revision, ..pb::ResponseHeader::default() })
    }
}

type Answer<T> = Result<Response<T>, Status>;

fn nobody_asks<T>() -> Answer<T> {
    Err(Status::unimplemented("nobody asks for this"))
}

#[tonic::async_trait]
impl Maintenance for Fake {
    type SnapshotStream = Empty<Result<pb::SnapshotResponse, Status>>;

    async fn status(&self, _: Request<pb::StatusRequest>) -> Answer<pb::StatusResponse> {
        let status = pb::StatusResponse { header: self.header(), ..pb::StatusResponse::default() };
        self.revision.fetch_add(self.each_time, Ordering::SeqCst);
        Ok(Response::new(status))
    }

    async fn hash_kv(&self, request: Request<pb::HashKvRequest>) -> Answer<pb::HashKvResponse> {
        let hash_revision = request.into_inner().revision;
        if hash_revision > self.revision.load(Ordering::SeqCst) {
            return Err(Status::out_of_range("etcdserver: mvcc: required revision is a future revision"));
        }
        let (header, hash) = (self.header(), self.hash);
        Ok(Response::new(pb::HashKvResponse { header, hash, hash_revision, compact_revision: -1 }))
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

    async fn snapshot(&self, _: Request<pb::SnapshotRequest>) -> Answer<Self::SnapshotStream> {
        nobody_asks()
    }

    async fn move_leader(&self, _: Request<pb::MoveLeaderRequest>) -> Answer<pb::MoveLeaderResponse> {
        nobody_asks()
    }

    async fn downgrade(&self, _: Request<pb::DowngradeRequest>) -> Answer<pb::DowngradeResponse> {
        nobody_asks()
    }
}

/// What `hashkv` says of these members, and their endpoints.
async fn hashkv(members: Vec<Fake>, more: &[&str]) -> (Said, Vec<String>) {
    let mut endpoints = Vec::new();
    for member in members {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        endpoints.push(listener.local_addr().expect("it is bound").to_string());
        let server = tonic::transport::Server::builder().add_service(MaintenanceServer::new(member));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_bowline"));
    command.arg("hashkv").args(more).args(["--endpoints", &endpoints.join(",")]);
    let said = tokio::task::spawn_blocking(move || run(&mut command, b"")).await.expect("it ends");
    (said, endpoints)
}

#[tokio::test]
async fn a_member_that_is_behind_is_named_and_the_exit_code_says_so() {
    let members = || vec![Fake::new(1, 3_501, 7), Fake::new(2, 3_501, 7), Fake::new(3, 1, 9)];
    // Each takes the time that a member may take to catch up, so all at once.
    let (plain, json, behind_there) =
        tokio::join!(hashkv(members(), &[]), hashkv(members(), &["-o", "json"]), hashkv(members(), &["--rev", "2000"]));
    let (said, endpoints) = plain;
    assert_eq!(said.code, Some(1), "{said:?}");
    let expected =
        format!("member 3 at http://{} is behind: it has revision 1, another member has 3501\n", endpoints[2]);
    assert_eq!(said.err, expected);
    let rows: Vec<Vec<&str>> = said.text().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1][1..], ["1", "3501", "-", "00000007"], "{said:?}");
    assert_eq!(rows[3][1..], ["3", "1", "-", "behind"], "{said:?}");

    let (said, _) = json;
    let told: Value = serde_json::from_slice(&said.out).expect("it is JSON");
    assert_eq!((said.code, &told["same"], &told["revision"]), (Some(1), &false.into(), &3_501.into()), "{told}");
    assert_eq!((&told["members"][2]["revision"], &told["members"][2]["behind"]), (&1.into(), &3_500.into()), "{told}");
    assert_eq!(told["members"][0].get("behind"), None, "{told}");

    // The same where the revision is given; at one that all have, none is behind.
    let (said, _) = behind_there;
    assert!(said.code == Some(1) && said.err.contains("it has revision 1, another member has 2000"), "{said:?}");
    let (said, _) = hashkv(vec![Fake::new(1, 9, 7), Fake::new(2, 5, 7)], &["--rev", "5"]).await;
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    let (said, _) = hashkv(vec![Fake::new(1, 9, 7)], &["--rev", "10"]).await;
    assert!(said.code == Some(1) && said.text().contains("is a future revision"), "{said:?}");
}

#[tokio::test]
async fn a_member_that_catches_up_is_not_behind() {
    let late = Fake { each_time: 60, ..Fake::new(2, 50, 7) };
    let (said, _) = hashkv(vec![Fake::new(1, 100, 7), late], &["-o", "json"]).await;
    let told: Value = serde_json::from_slice(&said.out).expect("it is JSON");
    assert_eq!((said.code, &told["same"]), (Some(0), &true.into()), "{said:?}");
    assert_eq!(told["members"][1]["revision"], 100, "compared at the highest: {told}");
}

#[tokio::test]
async fn members_that_differ_are_told() {
    let (said, _) = hashkv(vec![Fake::new(1, 9, 7), Fake::new(2, 9, 8)], &[]).await;
    assert_eq!((said.code, said.err.as_str()), (Some(1), "members differ\n"), "{said:?}");
}
