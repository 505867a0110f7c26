//! Clients whose `:authority` is none: the HTTP/2 library refuses their requests, and nothing else.
//!
//! DIFFERENCES.md says whom that concerns, and what they can do. The frames are written by hand here: no client
//! library sends such headers.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Cluster, PATIENCE};

/// The text in which it is told to users.
const DIFFERENCES: &str = include_str!("../../../../DIFFERENCES.md");

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The error of a malformed request.
const PROTOCOL_ERROR: u32 = 1;

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    Reset(u32),
}

struct Connection {
    stream: TcpStream,
    next: u32,
}

impl Connection {
    async fn open(cluster: &Cluster, id: u64) -> Connection {
        let mut stream = TcpStream::connect(cluster.server(id).client_address()).await.expect("it listens");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("sent");
        let mut connection = Connection { stream, next: 1 };
        connection.send(SETTINGS, 0, 0, &[]).await;
        connection
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, body: &[u8]) {
        let length = u32::try_from(body.len()).expect("it is short").to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.stream.write_all(&[&head, body].concat()).await.expect("sent");
    }

    /// Asks for the status, with this authority, or without one.
    async fn ask(&mut self, authority: Option<&str>) -> Outcome {
        let stream = self.next;
        self.next += 2;
        let mut fields = vec![(":method", "POST"), (":scheme", "http"), (":path", "/etcdserverpb.Maintenance/Status")];
        fields.extend(authority.map(|authority| (":authority", authority)));
        fields.extend([("content-type", "application/grpc"), ("te", "trailers")]);
        let mut block = Vec::new();
        for (name, value) in fields {
            // A field with its name in full, not indexed, not compressed.
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("it is short"));
                block.extend_from_slice(text.as_bytes());
            }
        }
        self.send(HEADERS, END_HEADERS, stream, &block).await;
        self.send(DATA, END_STREAM, stream, &[0; 5]).await;
        tokio::time::timeout(PATIENCE, self.outcome(stream)).await.expect("in time")
    }

    async fn outcome(&mut self, stream: u32) -> Outcome {
        loop {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await.expect("the connection lives");
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).await.expect("the connection lives");
            let of = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            match head[3] {
                HEADERS if of == stream => return Outcome::Answered,
                RESET if of == stream => {
                    let code = body[..].try_into().expect("four bytes");
                    return Outcome::Reset(u32::from_be_bytes(code));
                }
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn a_request_with_an_authority_that_is_none_is_refused_alone() {
    let cluster = Cluster::start(1, &[]);
    let leader = cluster.leader().await;
    let mut connection = Connection::open(&cluster, leader).await;
    for authority in [Some("localhost:2379"), Some("a.example"), Some("[::1]:2379"), Some("user@a"), None] {
        assert_eq!(connection.ask(authority).await, Outcome::Answered, "{authority:?}");
    }
    for authority in [
        "#initially=[127.0.0.1:2379]",
        "#initially=[http://a:2379;http://b:2379]",
        "",
        "a:1,b:2",
        "%2Frun%2Fa.sock",
        "/run/a.sock",
    ] {
        assert_eq!(connection.ask(Some(authority)).await, Outcome::Reset(PROTOCOL_ERROR), "{authority:?}");
        // The connection goes on.
        assert_eq!(connection.ask(Some("localhost")).await, Outcome::Answered, "after {authority:?}");
    }
}

#[test]
fn users_are_told_whose_authority_is_refused_and_what_to_do() {
    let row = DIFFERENCES.lines().find(|line| line.starts_with("| `:authority`")).expect("a row about it");
    for said in ["#initially=[", "3.5.0", "3.5.1", "PROTOCOL_ERROR", "grpc.default_authority"] {
        assert!(row.contains(said), "{said} is not in {row}");
    }
}
