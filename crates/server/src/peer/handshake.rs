//! Who speaks to whom: the first frame of each connection, and its answer.
//!
//! The one that connects says which protocol it speaks, who it is, whom it means, and what the connection
//! is for. The other says "welcome", or why not; both then know. Nothing else is read before.

use std::time::Duration;

use bowline_node::raft::NodeId;
use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::frame::{FrameError, put_frame, read_frame};
use super::wire::{Reader, WireError, put_bytes};

/// The version of everything between replicas. Both ends must have the same.
pub const PROTOCOL_VERSION: u16 = 3;

/// Says that this is the protocol at all: "BWLN".
const MAGIC: u32 = u32::from_le_bytes(*b"BWLN");

/// How long either end waits for the other's part.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// Longest frame of a handshake, in bytes.
const MAX_BYTES: u32 = 4096;

/// Longest reason for a refusal, and longest text of an introduction, in bytes.
const MAX_TEXT: usize = 512;

/// What a connection is for. Each has its own, so that none waits behind another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// Votes, answers, questions: small and urgent.
    Control,
    /// AppendEntries, with entries or without. A heartbeat names the last entry that was sent before it, so
    /// it must not overtake that one; and entries are as good as a heartbeat to whoever gets them.
    Entries,
    /// Pieces of snapshots.
    Snapshot,
    /// Requests of clients, on their way to the leader; answers come back on the same connection.
    Requests,
}

impl Channel {
    /// All of them.
    pub const ALL: [Channel; 4] = [Channel::Control, Channel::Entries, Channel::Snapshot, Channel::Requests];

    fn number(self) -> u8 {
        match self {
            Channel::Control => 1,
            Channel::Entries => 2,
            Channel::Snapshot => 3,
            Channel::Requests => 4,
        }
    }
}

/// The own part of every handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: u64,
    /// The replica.
    pub replica: NodeId,
    /// Which life of the replica: drawn when its folder was made.
    pub incarnation: u64,
}

/// What members tell each other of themselves, for those who ask who belongs to the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Introduction {
    /// Its name.
    pub name: String,
    /// Where it serves clients.
    pub client_url: String,
}

/// What the one that connects says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Who connects.
    pub from: Identity,
    /// Whom it means.
    pub to: NodeId,
    /// What for.
    pub channel: Channel,
    /// Itself.
    pub introduction: Introduction,
}

/// What the one that is connected to answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Its life.
    pub incarnation: u64,
    /// Itself.
    pub introduction: Introduction,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The other end says no.
    #[error("refused by the other end: {0}")]
    Refused(String),
    /// This end says no.
    #[error("{0}")]
    Unwelcome(String),
    /// The other end is silent.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Silent,
    /// The other end has hung up.
    #[error("the other end has hung up")]
    HungUp,
    /// The stream brings no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The frame is no part of a handshake.
    #[error("not a handshake: {0}")]
    Wire(#[from] WireError),
}

/// The part of the one that connects.
///
/// # Errors
/// There is no agreement, or nobody there.
pub async fn connect<S>(stream: &mut S, hello: &Hello) -> Result<Welcome, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut out = BytesMut::new();
    put_frame(&mut out, |out| put_hello(hello, out));
    let answer = async {
        stream.write_all(&out).await.map_err(FrameError::from)?;
        read_frame(stream, MAX_BYTES).await
    };
    let answer = timeout(PATIENCE, answer).await.map_err(|_| HandshakeError::Silent)??;
    let mut reader = Reader::new(answer.ok_or(HandshakeError::HungUp)?);
    if reader.flag("welcome")? {
        let welcome = Welcome { incarnation: reader.u64("incarnation")?, introduction: introduction(&mut reader)? };
        reader.end()?;
        return Ok(welcome);
    }
    Err(HandshakeError::Refused(reader.text("reason")?.chars().filter(|c| !c.is_control()).collect()))
}

/// The part of the one that is connected to. `judge` says why somebody who speaks the protocol and means
/// this replica is not welcome all the same.
///
/// # Errors
/// There is no agreement; the other end has been told why.
pub async fn accept<S>(
    stream: &mut S,
    own: Identity,
    introduction: &Introduction,
    judge: impl FnOnce(&Hello) -> Result<(), String>,
) -> Result<Hello, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let first = timeout(PATIENCE, read_frame(stream, MAX_BYTES)).await.map_err(|_| HandshakeError::Silent)??;
    let first = first.ok_or(HandshakeError::HungUp)?;
    let hello = match hello(first) {
        Ok(Ok(hello)) => judge_identity(&hello, own).and_then(|()| judge(&hello)).map(|()| hello),
        Ok(Err(reason)) => Err(reason),
        Err(error) => return Err(error.into()),
    };
    let mut out = BytesMut::new();
    put_frame(&mut out, |out| match &hello {
        Ok(_) => {
            out.put_u8(1);
            out.put_u64_le(own.incarnation);
            put_introduction(introduction, out);
        }
        Err(reason) => {
            out.put_u8(0);
            put_text(reason, out);
        }
    });
    let answered = timeout(PATIENCE, stream.write_all(&out)).await.map_err(|_| HandshakeError::Silent)?;
    let hello = hello.map_err(HandshakeError::Unwelcome)?;
    answered.map_err(FrameError::from)?;
    Ok(hello)
}

fn judge_identity(hello: &Hello, own: Identity) -> Result<(), String> {
    let Hello { from, to, .. } = hello;
    if from.cluster != own.cluster {
        return Err(format!(
            "member {} belongs to cluster {:016x}, and this is member {} of cluster {:016x}: check \
             --initial-cluster and --cluster-token",
            from.replica.0, from.cluster, own.replica.0, own.cluster
        ));
    }
    if *to != own.replica {
        let (from, to, own) = (from.replica.0, to.0, own.replica.0);
        return Err(format!("member {from} means member {to}, and this is member {own}: check --initial-cluster"));
    }
    Ok(())
}

fn put_hello(hello: &Hello, out: &mut BytesMut) {
    out.put_u32_le(MAGIC);
    out.put_u16_le(PROTOCOL_VERSION);
    out.put_u8(hello.channel.number());
    out.put_u64_le(hello.from.cluster);
    out.put_u64_le(hello.from.replica.0);
    out.put_u64_le(hello.from.incarnation);
    out.put_u64_le(hello.to.0);
    put_introduction(&hello.introduction, out);
}

fn put_introduction(introduction: &Introduction, out: &mut BytesMut) {
    put_text(&introduction.name, out);
    put_text(&introduction.client_url, out);
}

fn introduction(reader: &mut Reader) -> Result<Introduction, WireError> {
    Ok(Introduction { name: reader.text("name")?, client_url: reader.text("client url")? })
}

fn put_text(text: &str, out: &mut BytesMut) {
    put_bytes(out, &text.as_bytes()[..text.len().min(MAX_TEXT)]);
}

/// What was said, or why it can't be understood. Another version is told so before its fields are read.
fn hello(bytes: Bytes) -> Result<Result<Hello, String>, WireError> {
    let mut reader = Reader::new(bytes);
    let magic = reader.u32("magic")?;
    if magic != MAGIC {
        return Err(WireError::Value { field: "magic", value: magic.into(), allowed: "that of bowline's peers" });
    }
    let version = reader.u16("version")?;
    if version != PROTOCOL_VERSION {
        return Ok(Err(format!("it speaks version {version} of the peer protocol, and this one {PROTOCOL_VERSION}")));
    }
    let number = reader.u8("channel")?;
    let channel = Channel::ALL.into_iter().find(|channel| channel.number() == number);
    let channel = channel.ok_or(WireError::Value { field: "channel", value: number.into(), allowed: "1 to 4" })?;
    let cluster = reader.u64("cluster")?;
    let replica = NodeId(reader.u64("replica")?);
    let incarnation = reader.u64("incarnation")?;
    let to = NodeId(reader.u64("target")?);
    let introduction = introduction(&mut reader)?;
    reader.end()?;
    Ok(Ok(Hello { from: Identity { cluster, replica, incarnation }, to, channel, introduction }))
}

/// Reads a first frame, for a fuzzer: what is read is written and read back the same.
pub(super) fn fuzz(body: Bytes) {
    if let Ok(Ok(read)) = hello(body) {
        // Longer texts than are ever written are cut.
        if read.introduction.name.len().max(read.introduction.client_url.len()) <= MAX_TEXT {
            let mut out = BytesMut::new();
            put_hello(&read, &mut out);
            assert_eq!(hello(out.freeze()), Ok(Ok(read)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Identity = Identity { cluster: 7, replica: NodeId(1), incarnation: 4 };
    const B: Identity = Identity { cluster: 7, replica: NodeId(2), incarnation: 9 };

    fn introduction(name: &str) -> Introduction {
        Introduction { name: name.to_owned(), client_url: format!("http://{name}:2379") }
    }

    async fn shake(
        from: Identity,
        to: u64,
        channel: Channel,
    ) -> (Result<Welcome, HandshakeError>, Result<Hello, HandshakeError>) {
        let (mut near, mut far) = tokio::io::duplex(4096);
        let hello = Hello { from, to: NodeId(to), channel, introduction: introduction("a") };
        let own = introduction("b");
        tokio::join!(connect(&mut near, &hello), accept(&mut far, B, &own, |_| Ok(())))
    }

    #[tokio::test]
    async fn two_members_agree() {
        for channel in Channel::ALL {
            let (near, far) = shake(A, 2, channel).await;
            let welcome = Welcome { incarnation: 9, introduction: introduction("b") };
            assert_eq!(near.expect("welcome"), welcome);
            let hello = Hello { from: A, to: NodeId(2), channel, introduction: introduction("a") };
            assert_eq!(far.expect("understood"), hello);
        }
    }

    #[tokio::test]
    async fn another_cluster_is_refused_and_both_ends_know_why() {
        let stranger = Identity { cluster: 8, ..A };
        let (near, far) = shake(stranger, 2, Channel::Control).await;
        let reason = "member 1 belongs to cluster 0000000000000008, and this is member 2 of cluster \
                      0000000000000007: check --initial-cluster and --cluster-token";
        assert_eq!(near.expect_err("refused").to_string(), format!("refused by the other end: {reason}"));
        assert_eq!(far.expect_err("refused").to_string(), reason);
    }

    #[tokio::test]
    async fn another_target_is_refused() {
        let (near, _) = shake(A, 3, Channel::Control).await;
        let reason = "refused by the other end: member 1 means member 3, and this is member 2: check --initial-cluster";
        assert_eq!(near.expect_err("refused").to_string(), reason);
    }

    #[tokio::test]
    async fn another_version_is_told_so() {
        let (mut near, mut far) = tokio::io::duplex(4096);
        let mut out = BytesMut::new();
        put_frame(&mut out, |out| {
            out.put_u32_le(MAGIC);
            out.put_u16_le(PROTOCOL_VERSION + 1);
            out.put_slice(b"whatever a later version says here");
        });
        near.write_all(&out).await.expect("there is room");
        let error = accept(&mut far, B, &introduction("b"), |_| Ok(())).await.expect_err("another version");
        assert_eq!(error.to_string(), "it speaks version 4 of the peer protocol, and this one 3");
        let answer = read_frame(&mut near, 1024).await.expect("a frame").expect("an answer");
        assert_eq!(answer[0], 0);
    }

    #[tokio::test]
    async fn somebody_elses_protocol_is_no_handshake() {
        let (mut near, mut far) = tokio::io::duplex(4096);
        near.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("there is room");
        let error = accept(&mut far, B, &introduction("b"), |_| Ok(())).await.expect_err("not ours");
        assert!(matches!(error, HandshakeError::Frame(FrameError::TooLong { .. })), "{error}");
    }
}
