//! The TLS of a client.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::{Resumption, WebPkiServerVerifier};
use tokio::net::TcpStream;

use crate::files::{Pem, TlsError};
use crate::keeper::{VERSIONS, Version, own, roots};
use crate::names::{Names, Servers};
use crate::stream::{Stream, connect};
use crate::{provider, words};

/// Where systems keep the CAs that they trust.
const SYSTEM_CAS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The files of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// The CAs of the servers; `None`: those that the system trusts.
    pub ca: Option<PathBuf>,
    /// The certificate and the private key of the client, for servers that want one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Accept any certificate: nobody can read along, but the server may be anybody.
    pub skip_verification: bool,
}

impl ClientFiles {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them can't be used; the error names it.
    pub fn load(&self) -> Result<ClientTls, TlsError> {
        let read = |path: &PathBuf| Pem::read(path);
        let identity = match &self.identity {
            Some((cert, key)) => Some((Pem::read(cert)?, Pem::read(key)?)),
            None => None,
        };
        let ca = match &self.ca {
            _ if self.skip_verification => None,
            Some(path) => Some(read(path)?),
            None => Some(system_cas()?),
        };
        ClientTls::new(ca, identity)
    }
}

fn system_cas() -> Result<Pem, TlsError> {
    let given = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let known = SYSTEM_CAS.iter().map(Path::new).find(|path| path.exists()).map(Path::to_owned);
    match given.or(known) {
        Some(path) => Pem::read(&path),
        None => Err(TlsError::new("the system's CAs", "there is no file of them: name the file of a CA")),
    }
}

/// The protocol after the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 or older.
    Http1,
    /// HTTP/2, as gRPC needs it.
    Http2,
}

/// The TLS of a client. A clone shares its contents.
#[derive(Clone)]
pub struct ClientTls {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

impl ClientTls {
    /// Trusts these CAs, and has a certificate and its private key; all are PEM texts.
    ///
    /// # Errors
    /// One of them can't be used.
    pub fn from_pem(ca: &[u8], identity: Option<(&[u8], &[u8])>) -> Result<ClientTls, TlsError> {
        let identity =
            identity.map(|(cert, key)| (Pem::new("the certificate", cert), Pem::new("the private key", key)));
        ClientTls::new(Some(Pem::new("the CA", ca)), identity)
    }

    fn new(ca: Option<Pem>, identity: Option<(Pem, Pem)>) -> Result<ClientTls, TlsError> {
        let inner = match &ca {
            None => None,
            Some(ca) => {
                let verifier = WebPkiServerVerifier::builder_with_provider(roots(ca)?, provider()).build();
                Some(verifier.map_err(|why| TlsError::new(&ca.name, format!("can't be used: {why}")))?)
            }
        };
        let verifier = Arc::new(Servers { inner, names: Names::default(), provider: provider() });
        let builder = ClientConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(Version::Tls12.versions()).expect(VERSIONS);
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut http1 = match &identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let (own, _) = own(cert, key)?;
                builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(own)))
            }
        };
        http1.resumption = Resumption::disabled();
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut http2 = http1.clone();
        http2.alpn_protocols = vec![b"h2".to_vec()];
        Ok(ClientTls { http1: Arc::new(http1), http2: Arc::new(http2) })
    }

    /// Does the handshake with a server of this host, a name or an IP address (IPv6 with or without brackets).
    ///
    /// # Errors
    /// It fails; the error says why in plain words.
    pub async fn connect(&self, host: &str, stream: TcpStream, protocol: Protocol) -> std::io::Result<Stream> {
        let config = match protocol {
            Protocol::Http1 => &self.http1,
            Protocol::Http2 => &self.http2,
        };
        let connected = connect(&Arc::clone(config).into(), host, stream, "server").await;
        connected.map_err(|error| std::io::Error::new(error.kind(), words(&error, "server")))
    }
}
