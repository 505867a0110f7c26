//! What a certificate says, for messages and for the check of names.

use std::net::{Ipv4Addr, Ipv6Addr};

use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The common name (CN) of its owner, if it has one.
    pub common_name: Option<String>,
    /// The common name of its issuer, if that has one.
    pub issuer: Option<String>,
    /// The host names and IP addresses for which it is valid.
    pub hosts: Vec<String>,
    /// When it begins to be valid, in seconds since 1970.
    pub not_before: i64,
    /// When it ends to be valid, in seconds since 1970.
    pub not_after: i64,
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// Whether it is a CA's.
    pub is_ca: bool,
    /// Whether it may be shown by whoever accepts connections, such as a member; a client's may not.
    pub for_servers: bool,
}

impl Facts {
    /// Reads a certificate; `None` if it is malformed.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Facts> {
        let (_, read) = X509Certificate::from_der(certificate).ok()?;
        let common = |name: &X509Name<'_>| name.iter_common_name().find_map(|cn| cn.as_str().ok().map(readable));
        let names = read.subject_alternative_name().ok().flatten();
        let names = names.map(|names| names.value.general_names.iter().filter_map(host).collect());
        let usage = read.extended_key_usage().ok().flatten();
        let serial = read.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
        Some(Facts {
            common_name: common(read.subject()),
            issuer: common(read.issuer()),
            hosts: names.unwrap_or_default(),
            not_before: read.validity().not_before.timestamp(),
            not_after: read.validity().not_after.timestamp(),
            serial,
            is_ca: read.is_ca(),
            for_servers: usage.is_none_or(|usage| usage.value.any || usage.value.server_auth),
        })
    }

    /// Its common name, or else its first host, for messages.
    #[must_use]
    pub fn owner(&self) -> &str {
        self.common_name.as_deref().or(self.hosts.first().map(String::as_str)).unwrap_or("without a name")
    }
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(readable(name)),
        GeneralName::IPAddress(bytes) => match **bytes {
            [_, _, _, _] => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| Ipv4Addr::from(bytes).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| Ipv6Addr::from(bytes).to_string()),
        },
        _ => None,
    }
}

/// Without what must not get into a log, and not too long: it comes from strangers.
fn readable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(256).collect()
}
