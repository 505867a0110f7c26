//! Reads the command line of a replica, which has one of two forms:
//!
//! `PROGRAM <port> <own id> <peer id>...` or `PROGRAM <own id> <peer id>...`.
//!
//! The first argument of both may consist of decimal digits. If it does, and does not have four of
//! them, it is a port, as an id has four digits. Four decimal digits are a port if they have no
//! leading zero (ids usually have one), and at least two arguments follow, the first of which is an
//! id. Otherwise the first argument is the replica's own id. An explicit [`Form`] overrides this.

use crate::lan_id::{LanId, LanIdError};
use crate::message::shorten;

/// The most peers of one replica: a network has at most 21 replicas.
pub const MAX_PEERS: usize = 20;

/// What a replica is told on its command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments {
    /// The harness's UDP port; `None` for a local socket in the file that is named by `own`.
    pub port: Option<u16>,
    /// The replica's own id.
    pub own: LanId,
    /// The ids of all other replicas, 1 to [`MAX_PEERS`], in the order given.
    pub peers: Vec<LanId>,
}

/// A form of command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// `<port> <own id> <peer id>...`
    Udp,
    /// `<own id> <peer id>...`
    Local,
}

/// Why the arguments are invalid. Each error is displayed as one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentsError {
    /// There are no arguments, or just a port.
    #[error("the replica's own id is missing; usage: [<port>] <own id> <peer id>...")]
    NoOwnId,
    /// There is no peer id.
    #[error("no peer ids are given; a replica has 1 to {MAX_PEERS} peers")]
    NoPeers,
    /// There are too many peer ids.
    #[error("{count} peer ids are given; a replica has 1 to {MAX_PEERS} peers")]
    TooManyPeers {
        /// The number of peer ids.
        count: usize,
    },
    /// The port is invalid.
    #[error("port {value:?} is invalid; it must be a number from 1 to 65535")]
    Port {
        /// What was given, shortened.
        value: String,
    },
    /// An id is invalid.
    #[error("argument {position}: {source}")]
    Id {
        /// The argument's position, counted from 1.
        position: usize,
        /// What is wrong.
        source: LanIdError,
    },
    /// An id is `FFFF`.
    #[error("argument {position}: {value} can't be the id of a replica: it means every replica, or none")]
    Broadcast {
        /// The argument's position, counted from 1.
        position: usize,
        /// The id as it was spelled.
        value: LanId,
    },
    /// An id is given twice.
    #[error("argument {position}: {value} was already given; ids must differ")]
    Twice {
        /// The position of the second occurrence, counted from 1.
        position: usize,
        /// The second occurrence as it was spelled.
        value: LanId,
    },
}

impl Arguments {
    /// Reads a command line, the program's name not included.
    ///
    /// # Errors
    ///
    /// See [`ArgumentsError`].
    pub fn parse<S: AsRef<str>>(arguments: &[S], form: Option<Form>) -> Result<Arguments, ArgumentsError> {
        let texts: Vec<&str> = arguments.iter().map(AsRef::as_ref).collect();
        let (port, first_id) = match form.unwrap_or_else(|| form_of(&texts)) {
            Form::Local => (None, 0),
            Form::Udp => (Some(port(texts.first().ok_or(ArgumentsError::NoOwnId)?)?), 1),
        };
        let count = texts.len() - first_id;
        if count > MAX_PEERS + 1 {
            return Err(ArgumentsError::TooManyPeers { count: count - 1 });
        }
        let mut ids: Vec<LanId> = Vec::with_capacity(count);
        for (index, text) in texts.iter().enumerate().skip(first_id) {
            let position = index + 1;
            let value: LanId = text.parse().map_err(|source| ArgumentsError::Id { position, source })?;
            if value.is_broadcast() {
                return Err(ArgumentsError::Broadcast { position, value });
            }
            if ids.contains(&value) {
                return Err(ArgumentsError::Twice { position, value });
            }
            ids.push(value);
        }
        let (own, peers) = ids.split_first().ok_or(ArgumentsError::NoOwnId)?;
        if peers.is_empty() {
            return Err(ArgumentsError::NoPeers);
        }
        Ok(Arguments { port, own: *own, peers: peers.to_vec() })
    }
}

fn form_of(texts: &[&str]) -> Form {
    let [first, rest @ ..] = texts else {
        return Form::Local;
    };
    let decimal = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit());
    if decimal && first.len() != 4 {
        // It can't be an id. If it is an invalid port, the error should say so.
        return Form::Udp;
    }
    let can_be_port = decimal && !first.starts_with('0');
    let own_follows = rest.len() >= 2 && rest[0].parse::<LanId>().is_ok();
    if can_be_port && own_follows { Form::Udp } else { Form::Local }
}

fn port(text: &str) -> Result<u16, ArgumentsError> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if port > 0 && digits => Ok(port),
        _ => Err(ArgumentsError::Port { value: shorten(text) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, ArgumentsError> {
        let words: Vec<&str> = line.split_whitespace().collect();
        Arguments::parse(&words, None)
    }

    fn found(line: &str) -> (Option<u16>, String, usize) {
        let arguments = parse(line).unwrap();
        (arguments.port, arguments.own.to_string(), arguments.peers.len())
    }

    #[test]
    fn both_forms_are_told_apart_by_all_arguments() {
        let id = |id: &str| id.to_owned();
        assert_eq!(found("41234 0000 0001 0002"), (Some(41234), id("0000"), 2));
        assert_eq!(found("0000 0001 0002"), (None, id("0000"), 2));
        assert_eq!(found("00A1 00a2"), (None, id("00A1"), 1));
        assert_eq!(found("41234 0000 0001"), (Some(41234), id("0000"), 1));
        // Four digits: a port if an own id and a peer follow, and it has no leading zero.
        assert_eq!(found("5123 0000 0001"), (Some(5123), id("0000"), 1));
        assert_eq!(found("5123 0000"), (None, id("5123"), 1));
        assert_eq!(found("0512 0000 0001"), (None, id("0512"), 2));
        assert_eq!(found("51A3 0000 0001"), (None, id("51A3"), 2));
        assert_eq!(found("987 0000 0001"), (Some(987), id("0000"), 1));
    }

    #[test]
    fn an_explicit_form_settles_it() {
        let words = ["2000", "2001", "2002"];
        let local = Arguments::parse(&words, Some(Form::Local)).unwrap();
        assert_eq!((local.port, local.peers.len()), (None, 2));
        let udp = Arguments::parse(&words, Some(Form::Udp)).unwrap();
        assert_eq!((udp.port, udp.peers.len()), (Some(2000), 1));
        assert_eq!(Arguments::parse(&words, None), Ok(udp));
        let error = Arguments::parse(&["00A1", "0001", "0002"], Some(Form::Udp)).unwrap_err();
        assert_eq!(error, ArgumentsError::Port { value: id_text("00A1") });
    }

    fn id_text(text: &str) -> String {
        text.to_owned()
    }

    #[test]
    fn bad_arguments_are_named() {
        let message = |line: &str| parse(line).unwrap_err().to_string();
        assert!(message("").contains("own id is missing"));
        assert!(message("41234").contains("own id is missing"));
        assert!(message("0000").contains("no peer ids"));
        assert!(message("41234 0000").contains("no peer ids"));
        assert!(message("0 0000 0001").contains("from 1 to 65535"));
        assert!(message("65536 0000 0001").contains("port \"65536\""));
        assert!(message("99999999999999999999 0000 0001").contains("from 1 to 65535"));
        assert!(message("0000 0001 1").contains("argument 3: \"1\" is not an id"));
        assert!(message("00A1 0001 00a1").contains("argument 3: 00a1 was already given"));
        assert!(message("0000 FFFF").contains("argument 2: FFFF can't be the id of a replica"));
        assert!(message("+123 0000 0001").contains("argument 1: \"+123\" is not an id"));
        assert!(message("hello 0000 0001").contains("argument 1"));
        let many: Vec<String> = (0..22).map(|n| format!("{n:04X}")).collect();
        assert!(message(&many.join(" ")).contains("21 peer ids"));
        assert_eq!(found(&many[..21].join(" ")).2, 20);
    }
}
