//! The story of a world, a line for each event, made for eyes.

use std::fmt;

use bowline_node::{NodeMessage, Response};
use bowline_raft::NodeId;

/// A line of the story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When, in nanoseconds of true time.
    pub at: u64,
    /// Where; `None`: everywhere, or outside.
    pub id: Option<NodeId>,
    /// What.
    pub text: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.at / 1_000_000_000;
        let micros = self.at / 1_000 % 1_000_000;
        let id = self.id.map_or(String::new(), |id| id.to_string());
        write!(f, "{seconds:>4}.{micros:06}  {id:<4} {}", self.text)
    }
}

/// A message in a few words.
pub(crate) fn describe(message: &NodeMessage) -> String {
    match message {
        NodeMessage::Raft(message) => message.to_string(),
        NodeMessage::Chunk(chunk) => {
            let end = chunk.offset.wrapping_add(chunk.data.len() as u64);
            format!(
                "@{} Chunk last={} bytes {}..{end} of {}",
                chunk.term.0, chunk.header.position, chunk.offset, chunk.total
            )
        }
        NodeMessage::ChunkReply(reply) => format!("@{} ChunkReply received={}", reply.term.0, reply.received),
    }
}

/// A response in a few words.
pub(crate) fn describe_response(response: &Response) -> String {
    match response {
        Response::Done(bytes) if bytes.is_empty() => "done".to_owned(),
        Response::Done(bytes) => {
            let text = String::from_utf8_lossy(bytes);
            format!("done: {}", text.trim_end_matches('.'))
        }
        Response::NotLeader { leader: Some(leader) } => format!("not leader, ask {leader}"),
        Response::NotLeader { leader: None } => "not leader, none known".to_owned(),
        Response::Overloaded { limit } => format!("overloaded: {limit}"),
        Response::Superseded => "superseded".to_owned(),
        Response::Expired => "expired".to_owned(),
        Response::Refused(refusal) => format!("refused: {refusal}"),
    }
}
