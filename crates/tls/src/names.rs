//! Which names a certificate must have, beyond being signed by a trusted CA.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};

use crate::facts::Facts;

/// The allowed names. Without any, every name is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The common names, of which a certificate must have one.
    pub common: Vec<String>,
    /// The host names or IP addresses, for one of which a certificate must be valid.
    pub hosts: Vec<String>,
}

/// A certificate has no allowed name.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotAllowed(String);

impl Names {
    /// Checks a certificate whose signatures were checked.
    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let facts = Facts::of(certificate).ok_or(CertificateError::BadEncoding)?;
        let own = facts.common_name.as_deref();
        if !self.common.is_empty() && !self.common.iter().any(|name| Some(name.as_str()) == own) {
            let (own, allowed) = (own.unwrap_or("missing"), self.common.join(", "));
            return Err(not_allowed(format!("the common name {own} is not among the allowed ones: {allowed}")));
        }
        if self.hosts.is_empty() || self.hosts.iter().any(|host| is_valid_for(certificate, host)) {
            return Ok(());
        }
        let (own, allowed) = (list(&facts.hosts), self.hosts.join(", "));
        Err(not_allowed(format!("none of its host names ({own}) is among the allowed ones: {allowed}")))
    }
}

fn is_valid_for(certificate: &CertificateDer<'_>, host: &str) -> bool {
    let (Ok(parsed), Ok(name)) = (ParsedCertificate::try_from(certificate), ServerName::try_from(host)) else {
        return false;
    };
    verify_server_name(&parsed, &name).is_ok()
}

fn not_allowed(why: String) -> Error {
    CertificateError::Other(OtherError(Arc::new(NotAllowed(why)))).into()
}

/// Names for a message: not too many.
pub(crate) fn list(names: &[String]) -> String {
    match names {
        [] => "none".to_owned(),
        names if names.len() > 16 => format!("{}, ...", names[..16].join(", ")),
        names => names.join(", "),
    }
}

/// Checks the certificates of those who connect.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) inner: Arc<dyn ClientCertVerifier>,
    pub(crate) names: Names,
    /// Whether only members may connect: their certificates are also for whoever accepts connections. So the certificate
    /// of a client of the same CA opens no port of members.
    pub(crate) members_only: bool,
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        if self.members_only && !Facts::of(end_entity).is_some_and(|facts| facts.for_servers) {
            return Err(not_allowed(
                "it is a client's, not a member's: its extended key usage lacks servers".to_owned(),
            ));
        }
        self.names.check(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Checks the certificates of those who are connected to.
#[derive(Debug)]
pub(crate) struct Servers {
    /// `None`: any certificate is accepted, so the connection is private, but nobody knows with whom.
    pub(crate) inner: Option<Arc<WebPkiServerVerifier>>,
    pub(crate) names: Names,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(inner) = &self.inner else { return Ok(ServerCertVerified::assertion()) };
        let verified = inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        self.names.check(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
