//! Clients whose `:authority` is no host are served like all others, as etcd serves them.
//!
//! The frames are written by hand here: no client library of Rust sends such headers.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Cluster, PATIENCE};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The error of a malformed request.
const PROTOCOL_ERROR: u32 = 1;

/// `:authority` by its place in the static table, as a field that enters the dynamic table.
const ENTERS: u8 = 0x41;

/// The same as a field that does not.
const STAYS_OUT: u8 = 0x01;

/// The field that entered the dynamic table last, and the one before it.
const LAST: u8 = 0x80 | 62;
const BEFORE: u8 = LAST + 1;

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    Reset(u32),
}

struct Connection {
    stream: TcpStream,
    next: u32,
    /// How many bytes are sent at a time.
    piece: usize,
}

impl Connection {
    async fn open(cluster: &Cluster, id: u64) -> Connection {
        let mut stream = TcpStream::connect(cluster.server(id).client_address()).await.expect("it listens");
        stream.set_nodelay(true).expect("it is open");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("sent");
        let mut connection = Connection { stream, next: 1, piece: usize::MAX };
        connection.send(SETTINGS, 0, 0, &[]).await;
        connection
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, body: &[u8]) {
        let length = u32::try_from(body.len()).expect("it is short").to_be_bytes();
        let frame = [&length[1..], &[kind, flags], &stream.to_be_bytes(), body].concat();
        for piece in frame.chunks(self.piece) {
            self.stream.write_all(piece).await.expect("sent");
        }
    }

    /// Asks for the status, with this field for the authority, in one frame or in several.
    async fn ask(&mut self, authority: &[u8], frames: usize) -> Outcome {
        let stream = self.next;
        self.next += 2;
        let mut block = vec![0x83, 0x86]; // POST, http
        block.extend(literal(0x04, "/etcdserverpb.Maintenance/Status"));
        block.extend(authority);
        for (name, value) in [("content-type", "application/grpc"), ("te", "trailers")] {
            block.extend(literal(0, name));
            block.extend(&literal(0, value)[1..]);
        }
        let mut pieces = block.chunks(block.len().div_ceil(frames)).peekable();
        let mut kind = HEADERS;
        while let Some(piece) = pieces.next() {
            let flags = if pieces.peek().is_none() { END_HEADERS } else { 0 };
            self.send(kind, flags, stream, piece).await;
            kind = CONTINUATION;
        }
        self.send(DATA, END_STREAM, stream, &[0; 5]).await;
        self.outcome(stream).await
    }

    async fn outcome(&mut self, stream: u32) -> Outcome {
        tokio::time::timeout(PATIENCE, self.read_outcome(stream)).await.expect("in time")
    }

    async fn read_outcome(&mut self, stream: u32) -> Outcome {
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

/// A text behind a byte, not compressed.
fn literal(first: u8, text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("it is short");
    [&[first, length], text.as_bytes()].concat()
}

/// `#initially=[127.0.0.1:2379]` in HPACK's Huffman code.
const COMPRESSED: [u8; 22] = [
    0xff, 0xa3, 0x54, 0x64, 0x98, 0x74, 0x51, 0xea, 0x0f, 0xfd, 0x84, 0x4e, 0xae, 0x05, 0xc0, 0xb8, 0x6e, 0x09, 0x97,
    0x5f, 0xff, 0xe7,
];

/// Authorities that are hosts, and others that etcd's clients send.
const GOOD: [&str; 4] = ["localhost:2379", "a.example", "[::1]:2379", "user@a"];
const BAD: [&str; 6] = [
    "#initially=[127.0.0.1:2379]",
    "#initially=[http://a:2379;http://b:2379]",
    "http://127.0.0.1:2379",
    "a:1,b:2",
    "%2Frun%2Fa.sock",
    "/",
];

#[tokio::test]
async fn a_client_whose_authority_is_no_host_is_served() {
    let cluster = Cluster::start(1, &[]);
    let leader = cluster.leader().await;
    for piece in [usize::MAX, 1, 10] {
        let mut connection = Connection::open(&cluster, leader).await;
        connection.piece = piece;
        // Without one, with an empty one, as etcd's clients send it (an indexed field), and without the table.
        for authority in [&[][..], &[0x81], &[STAYS_OUT, 0]] {
            assert_eq!(connection.ask(authority, 1).await, Outcome::Answered, "{authority:x?}");
        }
        for authority in GOOD.into_iter().chain(BAD) {
            for (first, frames) in [(ENTERS, 1), (STAYS_OUT, 1), (ENTERS, 4)] {
                let asked = connection.ask(&literal(first, authority), frames).await;
                assert_eq!(asked, Outcome::Answered, "{authority}, {first:x}, {frames}");
                // The client and the server agree on what is in the table.
                if first == ENTERS {
                    assert_eq!(connection.ask(&[LAST], 1).await, Outcome::Answered, "{authority} again");
                }
            }
        }
        let compressed = [&[ENTERS, 0x80 | COMPRESSED.len() as u8], &COMPRESSED[..]].concat();
        for authority in [&compressed[..], &[LAST], &[BEFORE]] {
            assert_eq!(connection.ask(authority, 1).await, Outcome::Answered, "{authority:x?}");
        }
        let named = [&literal(0x40, ":authority")[..], &literal(0, BAD[0])[1..]].concat();
        for authority in [&named[..], &[LAST]] {
            assert_eq!(connection.ask(authority, 2).await, Outcome::Answered, "{authority:x?}");
        }
    }
}

#[tokio::test]
async fn the_table_of_a_client_with_many_authorities_stays_the_servers() {
    let cluster = Cluster::start(1, &[]);
    let leader = cluster.leader().await;
    let mut connection = Connection::open(&cluster, leader).await;
    // More than the table holds: 4,096 bytes, and 42 for each field besides its value (RFC 7541, 4.1).
    let authority = |number: usize| format!("#{}", "x".repeat(number));
    for number in 0..100 {
        assert_eq!(connection.ask(&literal(ENTERS, &authority(number)), 1).await, Outcome::Answered, "{number}");
    }
    let mut room = 4_096;
    for (place, number) in (0..100).rev().enumerate() {
        let size = 42 + authority(number).len();
        if room < size {
            break;
        }
        room -= size;
        let field = LAST + u8::try_from(place).expect("there are few");
        assert_eq!(connection.ask(&[field], 1).await, Outcome::Answered, "{place}");
    }
}

#[tokio::test]
async fn what_etcd_refuses_is_refused_alone() {
    let cluster = Cluster::start(1, &[]);
    let leader = cluster.leader().await;
    let mut connection = Connection::open(&cluster, leader).await;
    // A line break, and two authorities.
    for bad in [literal(STAYS_OUT, "a\nb"), literal(STAYS_OUT, "#a").repeat(2)] {
        assert_eq!(connection.ask(&bad, 1).await, Outcome::Reset(PROTOCOL_ERROR), "{bad:x?}");
        assert_eq!(connection.ask(&literal(STAYS_OUT, "localhost"), 1).await, Outcome::Answered, "after {bad:x?}");
    }
}
