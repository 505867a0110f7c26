//! TLS for members and clients: settings from files, who is accepted, and errors in plain words.
//!
//! rustls does the protocol, the parsing and the checks of certificates. This crate reads files ([`Settings`],
//! [`ClientFiles`]), replaces what has changed ([`Keeper`]), also checks the names that are allowed ([`Names`]), and says
//! what is wrong so that the reader knows what to do. Sessions are never resumed: a certificate that is revoked or has
//! expired is refused at the next connection.

mod client;
mod date;
mod facts;
mod files;
#[cfg(feature = "issue")]
pub mod issue;
mod keeper;
mod names;
mod stream;
#[cfg(test)]
mod tests;
mod words;

pub use client::{ClientFiles, ClientTls, Protocol};
pub use date::date;
pub use facts::Facts;
pub use files::{MAX_FILE_BYTES, TlsError, read_certificates};
pub use keeper::{Keeper, Settings, Use, Version};
pub use names::Names;
pub use stream::{FirstBytes, Stream, accept, connect, first_bytes, hang_up};
pub use words::{SERVER_REFUSED, SPEAKS_TLS, words};

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// The cryptography.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
