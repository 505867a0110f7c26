//! Errors of TLS in plain words.

use std::io;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use crate::date::date;
use crate::names::list;

/// What errors begin with that tell that the server refused the connection before it read any request.
pub const SERVER_REFUSED: &str = "the server refused the connection: ";

/// What a client without TLS is told at a port with TLS.
pub const SPEAKS_TLS: &str = "this port speaks TLS: use https:// and name the file of the CA (--cacert)";

/// An error of a connection in plain words. `other` says who the other end is, such as "server".
#[must_use]
pub fn words(error: &io::Error, other: &str) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(inner) => of(inner, other),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            format!("the {other} closed the connection during the TLS handshake: perhaps it speaks plain text")
        }
        None => error.to_string(),
    }
}

/// The same error with plain words, if it is one of TLS.
pub(crate) fn in_words(error: io::Error, other: &str) -> io::Error {
    match error.get_ref().is_some_and(|inner| inner.is::<Error>()) {
        true => io::Error::new(error.kind(), words(&error, other)),
        false => error,
    }
}

fn of(error: &Error, other: &str) -> String {
    match error {
        Error::InvalidCertificate(error) => certificate(error, other),
        Error::AlertReceived(alert) => format!("the {other} refused the connection: {}", alerted(*alert)),
        Error::NoCertificatesPresented => format!("the {other} sent no certificate, but one is required"),
        // The first bytes are no record of TLS.
        Error::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            format!("the {other} speaks plain text, not TLS")
        }
        Error::PeerIncompatible(why) => format!("the {other} offers no TLS that is allowed here: {why:?}"),
        Error::NoApplicationProtocol => format!("the {other} speaks another protocol than this port"),
        Error::InvalidCertRevocationList(why) => {
            format!("the certificate of the {other} can't be checked against the list of revoked certificates: {why:?}")
        }
        error => error.to_string(),
    }
}

fn certificate(error: &CertificateError, other: &str) -> String {
    let whose = format!("the certificate of the {other}");
    match error {
        CertificateError::Expired => format!("{whose} has expired"),
        CertificateError::ExpiredContext { not_after, .. } => format!("{whose} expired on {}", day(*not_after)),
        CertificateError::NotValidYet => format!("{whose} is not valid yet"),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("{whose} is not valid before {}", day(*not_before))
        }
        CertificateError::Revoked => format!("{whose} is revoked"),
        CertificateError::UnknownIssuer => format!("{whose} is not signed by a trusted CA"),
        CertificateError::BadSignature => {
            format!("{whose} is not signed by a trusted CA, but by another one of its name")
        }
        CertificateError::NotValidForName => format!("{whose} is not valid for its name"),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let presented: Vec<String> = presented.iter().map(|name| bare(name)).collect();
            format!("{whose} is for others: {} is not among {}", expected.to_str(), list(&presented))
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            let role = if other == "client" { "clients" } else { "servers" };
            format!("{whose} must not be used so: it lacks the extended key usage for {role}, or for both ends")
        }
        CertificateError::BadEncoding => format!("{whose} is malformed"),
        CertificateError::Other(why) => format!("{whose} is not allowed: {why}"),
        error => format!("{whose} is refused: {error}"),
    }
}

/// What the other end tells by an alert.
fn alerted(alert: AlertDescription) -> String {
    let text = match alert {
        AlertDescription::CertificateRequired => "it wants a certificate, and none was given",
        AlertDescription::CertificateExpired => "it says that this certificate has expired, or is not valid yet",
        AlertDescription::CertificateRevoked => "it says that this certificate is revoked",
        AlertDescription::UnknownCA => "it does not trust the CA that signed this certificate",
        AlertDescription::UnsupportedCertificate => "it says that this certificate is for another use",
        AlertDescription::BadCertificate => "it wants a certificate, or a better one",
        AlertDescription::CertificateUnknown | AlertDescription::AccessDenied => {
            "it does not allow this certificate, perhaps because of the name in it; its log says why"
        }
        AlertDescription::DecryptError => "it trusts a CA of that name, but another one signed this certificate",
        AlertDescription::ProtocolVersion => "it allows other versions of TLS only",
        AlertDescription::HandshakeFailure => "the two have no cipher suite in common",
        AlertDescription::NoApplicationProtocol => "its port is for another protocol",
        alert => return format!("{alert:?}"),
    };
    text.to_owned()
}

fn day(time: UnixTime) -> String {
    date(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}

/// `DnsName("localhost")` as `localhost`.
fn bare(name: &str) -> String {
    let inner = name.split_once('(').map_or(name, |(_, rest)| rest.trim_end_matches(')'));
    inner.trim_matches('"').chars().filter(|c| !c.is_control()).take(256).collect()
}
