//! The choice of the form of socket for a program.

use std::fmt;
use std::str::FromStr;

use bowline_lan::message::shorten;
use bowline_lan::socket::SocketKind;

/// The form of socket that the user chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum SocketChoice {
    /// Try the forms in turn.
    #[default]
    Auto,
    /// Use this form.
    Only(SocketKind),
}

impl SocketChoice {
    /// The forms to try, in order.
    pub fn kinds(self) -> Vec<SocketKind> {
        match self {
            SocketChoice::Auto => SocketKind::ALL.to_vec(),
            SocketChoice::Only(kind) => vec![kind],
        }
    }
}

impl fmt::Display for SocketChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketChoice::Auto => f.pad("auto"),
            SocketChoice::Only(kind) => kind.fmt(f),
        }
    }
}

/// Text that names no form of socket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not a form of socket; allowed: udp, packets, stream, auto")]
pub struct SocketChoiceError {
    /// What was given, shortened.
    pub value: String,
}

impl FromStr for SocketChoice {
    type Err = SocketChoiceError;

    fn from_str(text: &str) -> Result<SocketChoice, SocketChoiceError> {
        if text == "auto" {
            return Ok(SocketChoice::Auto);
        }
        let kind = SocketKind::ALL.into_iter().find(|kind| kind.name() == text);
        kind.map(SocketChoice::Only).ok_or_else(|| SocketChoiceError { value: shorten(text) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read_by_its_name() {
        for kind in SocketKind::ALL {
            assert_eq!(kind.name().parse(), Ok(SocketChoice::Only(kind)));
            assert_eq!(SocketChoice::Only(kind).kinds(), [kind]);
        }
        assert_eq!("auto".parse(), Ok(SocketChoice::Auto));
        assert_eq!(SocketChoice::Auto.kinds(), SocketKind::ALL);
    }

    #[test]
    fn an_unknown_kind_is_refused_with_the_known_ones() {
        let error = "tcp".parse::<SocketChoice>().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("\"tcp\"") && text.contains("udp, packets, stream"), "{text}");
    }
}
