//! The handshake: the first frame of each connection, and its answer.
//!
//! The connecting member sends its versions of the protocol, its identity, the id of the member that it wants, and the
//! channel. The other one accepts, or refuses with a reason. Nothing else is read before. A new member that knows only
//! an address may ask for the members instead ([`discover`]).
//!
//! The first frame begins with six bytes whose format never changes: "BWLN", and the sender's version as a `u16` in
//! little-endian order. A protobuf message follows, and the answer is one, too; field numbers never change.

use std::time::Duration;

use bowline_node::raft::NodeId;
use bowline_tls::FirstBytes;
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::frame::{FrameError, put_frame, read_frame};
use super::version::Protocol;

/// The first bytes of the protocol.
const MAGIC: [u8; 4] = *b"BWLN";

/// Time limit of each end for the other's part.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// Longest frame of a handshake, in bytes.
const MAX_BYTES: u32 = 4096;

/// Longest answer to a new member, in bytes.
const MAX_CLUSTER_BYTES: u32 = 1 << 20;

/// Longest reason for a refusal, in characters, and longest text of an introduction, in bytes.
const MAX_TEXT: usize = 512;

/// A kind of traffic. Each has its own connection, so that none waits behind another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Channel {
    /// Votes and answers, which are small and urgent.
    Control = 1,
    /// AppendEntries, with or without entries. A heartbeat names the last entry that was sent before it, so it must not
    /// overtake that entry. To the receiver, entries count as a heartbeat, too.
    Entries = 2,
    /// Pieces of snapshots.
    Snapshot = 3,
    /// Requests of clients that are forwarded to the leader, and their answers.
    Requests = 4,
    /// The question of a new member who the members are. The connection ends with the answer.
    Discovery = 5,
}

impl Channel {
    /// The kinds of traffic between members.
    pub const ALL: [Channel; 4] = [Channel::Control, Channel::Entries, Channel::Snapshot, Channel::Requests];
}

/// The identity of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: u64,
    /// The replica.
    pub replica: NodeId,
    /// A random number that the data folder got when it was created.
    pub incarnation: u64,
}

/// What members tell each other about themselves, for clients that list the members.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Introduction {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its address for clients.
    #[prost(string, tag = "2")]
    pub client_url: String,
    /// The version of the peer protocol that its program speaks.
    #[prost(uint32, tag = "3")]
    pub version: u32,
    /// The oldest version that it also speaks.
    #[prost(uint32, tag = "4")]
    pub oldest_version: u32,
    /// Its address for other members; empty before version 6.
    #[prost(string, tag = "5")]
    pub peer_url: String,
}

impl Introduction {
    /// The introduction of a member without its address for other members. Texts are cut to 512 bytes.
    #[must_use]
    pub fn new(name: &str, client_url: &str, protocol: Protocol) -> Introduction {
        let cut = |text: &str| text[..text.floor_char_boundary(MAX_TEXT)].to_owned();
        let Protocol { version, oldest_version, .. } = protocol;
        Introduction { name: cut(name), client_url: cut(client_url), version, oldest_version, peer_url: String::new() }
    }

    /// The same with its address for other members, which is cut likewise.
    #[must_use]
    pub fn at(self, peer_url: &str) -> Introduction {
        Introduction { peer_url: peer_url[..peer_url.floor_char_boundary(MAX_TEXT)].to_owned(), ..self }
    }
}

/// The message of the connecting member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The connecting member.
    pub from: Identity,
    /// The member that it wants.
    pub to: NodeId,
    /// The kind of traffic.
    pub channel: Channel,
    /// Its introduction.
    pub introduction: Introduction,
}

/// The answer that accepts a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The incarnation of the answering member.
    pub incarnation: u64,
    /// Its introduction.
    pub introduction: Introduction,
}

/// The answer to a new member.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ClusterInfo {
    /// The id of the cluster.
    #[prost(fixed64, tag = "1")]
    pub cluster: u64,
    /// Its members.
    #[prost(message, repeated, tag = "2")]
    pub members: Vec<MemberInfo>,
}

/// A member, for a new one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct MemberInfo {
    /// Its id.
    #[prost(fixed64, tag = "1")]
    pub id: u64,
    /// Its addresses for other members.
    #[prost(string, repeated, tag = "2")]
    pub peer_urls: Vec<String>,
    /// Whether it has started once, so that it must have a data folder.
    #[prost(bool, tag = "3")]
    pub has_started: bool,
}

/// Why a member is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// For this reason; it may try again.
    Reason(String),
    /// It was removed from the cluster, and can stop.
    Removed(String),
}

impl From<Refusal> for String {
    /// The reason.
    fn from(refusal: Refusal) -> String {
        let (Refusal::Reason(why) | Refusal::Removed(why)) = refusal;
        why
    }
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The other end refused.
    #[error("refused by the other end: {0}")]
    Refused(String),
    /// The other end says that this member was removed from the cluster.
    #[error("refused by the other end: {0}")]
    Removed(String),
    /// This end refused.
    #[error("{0}")]
    Unwelcome(String),
    /// The other end did not answer.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Silent,
    /// The other end closed the connection.
    #[error("the other end closed the connection")]
    HungUp,
    /// The frame can't be read.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The message can't be decoded.
    #[error("not a handshake: {0}")]
    Message(#[from] prost::DecodeError),
    /// The frame does not belong to this protocol.
    #[error("not a handshake of this protocol")]
    Foreign,
    /// The other end speaks TLS, this one does not.
    #[error("the other end speaks TLS, but this member was started without --peer-cert-file or --peer-auto-tls")]
    SpeaksTls,
    /// The handshake of TLS failed.
    #[error("{0}")]
    Tls(String),
}

/// The message after the first six bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct HelloMessage {
    /// The number of a [`Channel`]. Not an enumeration, because the default of a missing one would be its first value.
    #[prost(int32, tag = "1")]
    channel: i32,
    #[prost(fixed64, tag = "2")]
    cluster: u64,
    #[prost(fixed64, tag = "3")]
    replica: u64,
    #[prost(fixed64, tag = "4")]
    incarnation: u64,
    #[prost(fixed64, tag = "5")]
    to: u64,
    #[prost(message, required, tag = "6")]
    introduction: Introduction,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnswerMessage {
    #[prost(oneof = "Answer", tags = "1, 2, 3, 4")]
    answer: Option<Answer>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Answer {
    #[prost(message, tag = "1")]
    Welcome(WelcomeMessage),
    /// The reason.
    #[prost(string, tag = "2")]
    Refused(String),
    /// The member was removed. Version 6 introduced it.
    #[prost(string, tag = "3")]
    Removed(String),
    #[prost(message, tag = "4")]
    Cluster(ClusterInfo),
}

#[derive(Clone, PartialEq, prost::Message)]
struct WelcomeMessage {
    #[prost(fixed64, tag = "1")]
    incarnation: u64,
    #[prost(message, required, tag = "2")]
    introduction: Introduction,
}

/// Does the handshake at the connecting end.
///
/// # Errors
/// The other end refuses or does not answer.
pub async fn connect<S>(stream: &mut S, hello: &Hello) -> Result<Welcome, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match ask(stream, hello, MAX_BYTES).await? {
        Answer::Welcome(WelcomeMessage { incarnation, introduction }) => Ok(Welcome { incarnation, introduction }),
        Answer::Removed(reason) => Err(HandshakeError::Removed(readable(&reason))),
        Answer::Refused(_) | Answer::Cluster(_) => Err(HandshakeError::Foreign),
    }
}

/// Asks a member who the members are.
///
/// # Errors
/// The other end refuses or does not answer.
pub async fn discover<S>(stream: &mut S, introduction: &Introduction) -> Result<ClusterInfo, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let nobody = Identity { cluster: 0, replica: NodeId(0), incarnation: 0 };
    let (to, channel, introduction) = (NodeId(0), Channel::Discovery, introduction.clone());
    match ask(stream, &Hello { from: nobody, to, channel, introduction }, MAX_CLUSTER_BYTES).await? {
        Answer::Cluster(info) => Ok(info),
        Answer::Welcome(_) | Answer::Refused(_) | Answer::Removed(_) => Err(HandshakeError::Foreign),
    }
}

/// Sends the first frame, and reads the answer. A refusal is an error.
async fn ask<S>(stream: &mut S, hello: &Hello, limit: u32) -> Result<Answer, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut out = BytesMut::new();
    put_frame(&mut out, |out| put_hello(hello, out));
    let answer = async {
        stream.write_all(&out).await?;
        stream.flush().await?;
        read_frame(stream, limit).await
    };
    let answer = timeout(PATIENCE, answer).await.map_err(|_| HandshakeError::Silent)??;
    let answer = answer.ok_or(HandshakeError::HungUp)?;
    // Before version 4 a refusal was a zero, a length and a text.
    if let [0, _, _, _, _, reason @ ..] = &answer[..] {
        return Err(HandshakeError::Refused(readable(&String::from_utf8_lossy(reason))));
    }
    match AnswerMessage::decode(answer)?.answer {
        Some(Answer::Refused(reason)) => Err(HandshakeError::Refused(readable(&reason))),
        answer => answer.ok_or(HandshakeError::Foreign),
    }
}

/// Removes from a text what must not get into a log.
fn readable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

/// Does the handshake at the accepting end. `judge` may refuse a member that speaks the protocol and wants this
/// replica. `cluster` is the answer to a new member. Returns `None` if it was given.
///
/// # Errors
/// This end refuses, and has told the other end why; or the handshake can't be read.
pub async fn accept<S>(
    stream: &mut S,
    own: Identity,
    introduction: &Introduction,
    judge: impl FnOnce(&Hello) -> Result<(), Refusal>,
    cluster: impl FnOnce() -> ClusterInfo,
) -> Result<Option<Hello>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let first = timeout(PATIENCE, read_frame(stream, MAX_BYTES)).await.map_err(|_| HandshakeError::Silent)?;
    let first = first.map_err(|error| match error {
        FrameError::TooLong { length, .. } if FirstBytes::of(&length.to_le_bytes()) == FirstBytes::Tls => {
            HandshakeError::SpeaksTls
        }
        error => error.into(),
    })?;
    let first = first.ok_or(HandshakeError::HungUp)?;
    let hello = match hello(&first, introduction) {
        Ok(Ok(Hello { channel: Channel::Discovery, .. })) => Ok(None),
        Ok(Ok(hello)) => {
            let judged = judge_identity(&hello, own).map_err(Refusal::Reason).and_then(|()| judge(&hello));
            judged.map(|()| Some(hello))
        }
        Ok(Err(reason)) => Err(Refusal::Reason(reason)),
        Err(error) => return Err(error),
    };
    let answer = match &hello {
        Ok(Some(_)) => {
            let (incarnation, introduction) = (own.incarnation, introduction.clone());
            Answer::Welcome(WelcomeMessage { incarnation, introduction })
        }
        Ok(None) => Answer::Cluster(cluster()),
        Err(Refusal::Reason(reason)) => Answer::Refused(readable(reason)),
        Err(Refusal::Removed(reason)) => Answer::Removed(readable(reason)),
    };
    let out = framed(answer);
    let answer = async {
        stream.write_all(&out).await?;
        stream.flush().await
    };
    let answered = timeout(PATIENCE, answer).await.map_err(|_| HandshakeError::Silent)?;
    let hello = hello.map_err(|refusal| HandshakeError::Unwelcome(refusal.into()))?;
    answered.map_err(FrameError::from)?;
    Ok(hello)
}

fn framed(answer: Answer) -> BytesMut {
    let answer = AnswerMessage { answer: Some(answer) }.encode_to_vec();
    let mut out = BytesMut::new();
    put_frame(&mut out, |out| out.put_slice(&answer));
    out
}

/// What a member without TLS is told at a port with TLS.
pub(crate) fn answer_member(_: FirstBytes) -> Vec<u8> {
    let why = "this member's port speaks TLS: start the other one with --peer-cert-file or --peer-auto-tls, too";
    framed(Answer::Refused(why.to_owned())).to_vec()
}

fn judge_identity(hello: &Hello, own: Identity) -> Result<(), String> {
    let Hello { from, to, .. } = hello;
    if from.cluster != own.cluster {
        return Err(format!(
            "member {:x} belongs to cluster {:016x}, but this is member {:x} of cluster {:016x}: check \
             --initial-cluster and --cluster-token",
            from.replica.0, from.cluster, own.replica.0, own.cluster
        ));
    }
    if *to != own.replica {
        let (from, to, own) = (from.replica.0, to.0, own.replica.0);
        return Err(format!(
            "member {from:x} wants member {to:x}, but this is member {own:x}: check --initial-cluster"
        ));
    }
    Ok(())
}

fn put_hello(hello: &Hello, out: &mut BytesMut) {
    out.put_slice(&MAGIC);
    out.put_u16_le(u16::try_from(hello.introduction.version).expect("there will never be so many versions"));
    let message = HelloMessage {
        channel: hello.channel.into(),
        cluster: hello.from.cluster,
        replica: hello.from.replica.0,
        incarnation: hello.from.incarnation,
        to: hello.to.0,
        introduction: hello.introduction.clone(),
    };
    message.encode(out).expect("memory grows with what is written to it");
}

/// The version in the first bytes, and the message after them.
fn split(bytes: &[u8]) -> Result<(u32, &[u8]), HandshakeError> {
    let rest = bytes.strip_prefix(&MAGIC).ok_or(HandshakeError::Foreign)?;
    let (version, message) = rest.split_first_chunk().ok_or(HandshakeError::Foreign)?;
    Ok((u16::from_le_bytes(*version).into(), message))
}

/// Decodes the first frame, or gives the reason for a refusal. The version is checked before the fields are decoded.
fn hello(bytes: &[u8], own: &Introduction) -> Result<Result<Hello, String>, HandshakeError> {
    let (version, message) = split(bytes)?;
    if version < own.oldest_version {
        return Ok(Err(too_far_apart(&format!("version {version}"), own)));
    }
    let HelloMessage { channel, cluster, replica, incarnation, to, introduction } = HelloMessage::decode(message)?;
    if introduction.oldest_version > own.version {
        let theirs = format!("versions {} to {}", introduction.oldest_version, introduction.version);
        return Ok(Err(too_far_apart(&theirs, own)));
    }
    let Ok(channel) = Channel::try_from(channel) else {
        return Ok(Err(format!("unknown kind of connection, number {channel}")));
    };
    let from = Identity { cluster, replica: NodeId(replica), incarnation };
    Ok(Ok(Hello { from, to: NodeId(to), channel, introduction }))
}

/// The connecting member, from a first frame: for proxies in tests.
#[must_use]
pub fn sender(hello: &[u8]) -> Option<NodeId> {
    let (_, message) = split(hello).ok()?;
    HelloMessage::decode(message).ok().map(|hello| NodeId(hello.replica))
}

fn too_far_apart(theirs: &str, own: &Introduction) -> String {
    let Introduction { version, oldest_version, .. } = own;
    format!(
        "it speaks {theirs} of the peer protocol, but this member speaks {oldest_version} to {version}: upgrade one \
         version at a time"
    )
}

/// For a fuzzer: decodes a first frame, and checks that encoding and decoding it again gives the same.
pub(super) fn fuzz(body: &Bytes) {
    let own = Introduction::new("", "", Protocol::CURRENT);
    // A version that does not fit into a `u16` can't be encoded.
    if let Ok(Ok(read)) = hello(body, &own)
        && (own.oldest_version..=u16::MAX.into()).contains(&read.introduction.version)
    {
        let mut out = BytesMut::new();
        put_hello(&read, &mut out);
        let again = hello(&out, &own);
        assert!(matches!(again, Ok(Ok(again)) if again == read), "it is written and read back the same");
    }
    let _ = AnswerMessage::decode(body.clone());
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Protocol = Protocol::CURRENT;
    const A: Identity = Identity { cluster: 7, replica: NodeId(1), incarnation: 4 };
    const B: Identity = Identity { cluster: 7, replica: NodeId(2), incarnation: 9 };

    fn introduction(name: &str) -> Introduction {
        Introduction::new(name, &format!("http://{name}:2379"), OWN)
    }

    async fn shake(
        from: Identity,
        to: u64,
        channel: Channel,
    ) -> (Result<Welcome, HandshakeError>, Result<Hello, HandshakeError>) {
        let (mut near, mut far) = tokio::io::duplex(4096);
        let hello = Hello { from, to: NodeId(to), channel, introduction: introduction("a") };
        tokio::join!(connect(&mut near, &hello), welcome(&mut far))
    }

    async fn welcome(far: &mut tokio::io::DuplexStream) -> Result<Hello, HandshakeError> {
        let accepted = accept(far, B, &introduction("b"), |_| Ok(()), ClusterInfo::default).await;
        accepted.map(|hello| hello.expect("it did not ask for the members"))
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
        let reason = "member 1 belongs to cluster 0000000000000008, but this is member 2 of cluster \
                      0000000000000007: check --initial-cluster and --cluster-token";
        assert_eq!(near.expect_err("refused").to_string(), format!("refused by the other end: {reason}"));
        assert_eq!(far.expect_err("refused").to_string(), reason);
    }

    #[tokio::test]
    async fn another_target_is_refused() {
        let (near, _) = shake(A, 3, Channel::Control).await;
        let reason = "refused by the other end: member 1 wants member 3, but this is member 2: check --initial-cluster";
        assert_eq!(near.expect_err("refused").to_string(), reason);
    }

    /// Says what follows "BWLN", and gives what both ends make of it.
    async fn say(rest: &[u8]) -> (Result<Welcome, HandshakeError>, Result<Hello, HandshakeError>) {
        let (mut near, mut far) = tokio::io::duplex(4096);
        let mut out = BytesMut::new();
        put_frame(&mut out, |out| {
            out.put_slice(&MAGIC);
            out.put_slice(rest);
        });
        near.write_all(&out).await.expect("there is room");
        let far = welcome(&mut far).await;
        let hello = Hello { from: A, to: NodeId(2), channel: Channel::Control, introduction: introduction("a") };
        (connect(&mut near, &hello).await, far)
    }

    #[tokio::test]
    async fn an_older_version_is_told_so_whatever_it_says() {
        let (near, far) = say(&[3, 0, 1, 255, 255, 255]).await;
        let Protocol { version, oldest_version, .. } = OWN;
        let reason = format!(
            "it speaks version 3 of the peer protocol, but this member speaks {oldest_version} to {version}: upgrade \
             one version at a time"
        );
        assert_eq!(far.expect_err("another version").to_string(), reason);
        assert_eq!(near.expect_err("refused").to_string(), format!("refused by the other end: {reason}"));
    }

    fn hello_of(introduction: Introduction) -> HelloMessage {
        let (cluster, replica, incarnation, to) = (7, 1, 4, 2);
        HelloMessage { channel: Channel::Control.into(), cluster, replica, incarnation, to, introduction }
    }

    #[tokio::test]
    async fn the_next_version_is_welcome_with_fields_that_are_not_known_and_one_after_that_is_not() {
        let next = Introduction { version: OWN.version + 1, ..introduction("a") };
        let unknown_field = [0xf8, 0x07, 1];
        let message = [&[9, 0][..], &hello_of(next.clone()).encode_to_vec(), &unknown_field].concat();
        let (near, far) = say(&message).await;
        near.expect("welcome");
        assert_eq!(far.expect("understood").introduction, next);
        let (version, oldest_version) = (OWN.version + 2, OWN.version + 1);
        let later = Introduction { version, oldest_version, ..introduction("a") };
        let (_, far) = say(&[&[9, 0][..], &hello_of(later).encode_to_vec()].concat()).await;
        let error = far.expect_err("too far apart").to_string();
        assert!(error.starts_with(&format!("it speaks versions {oldest_version} to {version} of")), "{error}");
    }

    #[tokio::test]
    async fn a_purpose_that_is_not_known_is_refused() {
        let message = HelloMessage { channel: 99, ..hello_of(introduction("a")) };
        let (_, far) = say(&[&[9, 0][..], &message.encode_to_vec()].concat()).await;
        let told = "unknown kind of connection, number 99";
        assert_eq!(far.expect_err("unknown").to_string(), told);
    }

    /// How members refused each other before version 4.
    #[tokio::test]
    async fn a_refusal_of_an_older_member_is_understood() {
        let (mut near, mut far) = tokio::io::duplex(4096);
        let mut out = BytesMut::new();
        put_frame(&mut out, |out| out.put_slice(b"\0\x03\0\0\0why"));
        far.write_all(&out).await.expect("there is room");
        let hello = Hello { from: A, to: NodeId(2), channel: Channel::Control, introduction: introduction("a") };
        let error = connect(&mut near, &hello).await.expect_err("refused");
        assert_eq!(error.to_string(), "refused by the other end: why");
    }

    /// What members of other versions send and read. Numbers of fields are kept for ever.
    #[test]
    fn handshakes_keep_their_bytes() {
        let introduction = Introduction { version: 4, oldest_version: 3, ..introduction("a") };
        let hello = hello_of(introduction.clone()).encode_to_vec();
        let welcome = Answer::Welcome(WelcomeMessage { incarnation: 9, introduction });
        let answer = |answer| AnswerMessage { answer: Some(answer) }.encode_to_vec();
        let hex = |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let said = "0801110700000000000000190100000000000000210400000000000000290200000000000000";
        let own = "0a0161120d687474703a2f2f613a3233373918042003";
        assert_eq!(hex(hello), format!("{said}3216{own}"));
        assert_eq!(hex(answer(welcome)), format!("0a210909000000000000001216{own}"));
        assert_eq!(hex(answer(Answer::Refused("why".to_owned()))), "1203776879");
        assert_eq!(hex(answer(Answer::Removed("why".to_owned()))), "1a03776879");
        let member = MemberInfo { id: 1, peer_urls: vec!["p".to_owned()], has_started: true };
        let cluster = Answer::Cluster(ClusterInfo { cluster: 7, members: vec![member] });
        assert_eq!(hex(answer(cluster)), "2219090700000000000000120e0901000000000000001201701801");
        assert_eq!(hex(Introduction::default().at("p").encode_to_vec()), "2a0170");
    }

    #[tokio::test]
    async fn a_new_member_is_told_who_the_members_are() {
        let (mut near, mut far) = tokio::io::duplex(4096);
        let member = |id| MemberInfo { id, peer_urls: vec![format!("http://h{id}:1")], has_started: id == 1 };
        let info = ClusterInfo { cluster: 7, members: (1..=64).map(member).collect() };
        let (own, asking, told) = (introduction("b"), introduction("a"), info.clone());
        let (near, far) = tokio::join!(
            discover(&mut near, &asking),
            accept(&mut far, B, &own, |_| panic!("there is nobody to judge"), || told)
        );
        assert_eq!(near.expect("told"), info);
        assert_eq!(far.expect("answered"), None);
    }

    #[tokio::test]
    async fn a_removed_member_is_told_so() {
        let (mut near, mut far) = tokio::io::duplex(4096);
        let hello = Hello { from: A, to: NodeId(2), channel: Channel::Control, introduction: introduction("a") };
        let removed = |_: &Hello| Err(Refusal::Removed("member 1 was removed".to_owned()));
        let own = introduction("b");
        let (near, far) =
            tokio::join!(connect(&mut near, &hello), accept(&mut far, B, &own, removed, ClusterInfo::default));
        assert!(matches!(near, Err(HandshakeError::Removed(why)) if why == "member 1 was removed"));
        assert!(matches!(far, Err(HandshakeError::Unwelcome(_))));
    }

    #[tokio::test]
    async fn somebody_elses_protocol_is_no_handshake() {
        let (mut near, mut far) = tokio::io::duplex(4096);
        near.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("there is room");
        let error = welcome(&mut far).await.expect_err("not ours");
        assert!(matches!(error, HandshakeError::Frame(FrameError::TooLong { .. })), "{error}");
    }
}
