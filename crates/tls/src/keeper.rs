//! The TLS of a listener, read from files, and read again when they change.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::pki_types::{CertificateRevocationListDer, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, Error, InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::date::date;
use crate::facts::Facts;
use crate::files::{Pem, TlsError};
use crate::names::{Clients, Names, Servers};
use crate::provider;

/// The protocol between members, for ALPN: it keeps other programs away from their ports.
const MEMBERS_PROTOCOL: &[u8] = b"bowline-peer";

/// The oldest version of TLS that is allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// 1.2 and 1.3.
    #[default]
    Tls12,
    /// 1.3 only.
    Tls13,
}

static ONLY_TLS13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

impl Version {
    pub(crate) fn versions(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Version::Tls12 => rustls::ALL_VERSIONS,
            Version::Tls13 => &ONLY_TLS13,
        }
    }
}

/// The files of a listener, and what it asks of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The certificate, and those of intermediate CAs after it.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Whether the two are made at the start, signed by themselves. Then nobody can check them.
    pub auto: bool,
    /// The CAs of whoever connects, who must then have a certificate.
    pub ca: Option<PathBuf>,
    /// Lists of revoked certificates.
    pub crl: Option<PathBuf>,
    /// The names that the others' certificates may have.
    pub names: Names,
    /// The oldest version of TLS.
    pub oldest: Version,
}

/// Who uses a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Clients, with HTTP.
    Clients,
    /// Members, each of which also connects to the others with the same files.
    Members,
}

/// The TLS of a listener, and of the connections that a member makes. New connections use the files as they are at
/// the last [`Keeper::refresh`]; open ones live on.
pub struct Keeper {
    settings: Settings,
    purpose: Use,
    present: RwLock<Present>,
}

struct Present {
    contents: Contents,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    facts: Facts,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Keeper {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them can't be used; the error names it.
    pub fn load(settings: Settings, purpose: Use) -> Result<Keeper, TlsError> {
        let contents = Contents { pair: settings.read_pair()?, trust: settings.read_trust()? };
        let present = settings.present(contents, purpose)?;
        Ok(Keeper { settings, purpose, present: RwLock::new(present) })
    }

    /// Reads the files again. Returns whether they have changed. What can't be used stays as it was: the certificate with
    /// its key on the one hand, the CAs with the lists of revoked certificates on the other.
    ///
    /// # Errors
    /// One of the files can't be used; the error names it.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        let before = self.present.read().unwrap_or_else(PoisonError::into_inner).contents.clone();
        let (pair, trust) = (self.settings.read_pair(), self.settings.read_trust());
        let error = [pair.as_ref().err(), trust.as_ref().err()].into_iter().flatten().next().cloned();
        let pair = pair.unwrap_or_else(|_| before.pair.clone());
        let trust = trust.unwrap_or_else(|_| before.trust.clone());
        let all = Contents { pair: pair.clone(), trust: trust.clone() };
        let Err(wrong) = self.replace(&before, all) else {
            return error.map_or_else(|| Ok(pair != before.pair || trust != before.trust), Err);
        };
        // A bad certificate must not keep a list of revoked ones from being used, nor the other way round.
        let _ = self.replace(&before, Contents { pair: before.pair.clone(), trust });
        let _ = self.replace(&before, Contents { pair, trust: before.trust.clone() });
        Err(error.unwrap_or(wrong))
    }

    /// Uses other contents from now on, unless they are those from before.
    fn replace(&self, before: &Contents, contents: Contents) -> Result<(), TlsError> {
        if contents == *before {
            return Ok(());
        }
        let present = self.settings.present(contents, self.purpose)?;
        // Every change is complete before the lock is released, even after a panic.
        *self.present.write().unwrap_or_else(PoisonError::into_inner) = present;
        Ok(())
    }

    /// For a connection that is accepted now.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.present.read().unwrap_or_else(PoisonError::into_inner).server).into()
    }

    /// For a connection that this member makes now.
    #[must_use]
    pub fn connector(&self) -> TlsConnector {
        Arc::clone(&self.present.read().unwrap_or_else(PoisonError::into_inner).client).into()
    }

    /// What the certificate in use says.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.present.read().unwrap_or_else(PoisonError::into_inner).facts.clone()
    }
}

/// What the files contain.
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    pair: Pair,
    trust: Trust,
}

/// The certificate and its key.
#[derive(Clone, PartialEq, Eq)]
struct Pair {
    cert: Pem,
    key: Pem,
}

/// What others' certificates are checked with.
#[derive(Clone, PartialEq, Eq)]
struct Trust {
    ca: Option<Pem>,
    crl: Option<Pem>,
}

impl Settings {
    /// For a connection of a member that is about to start.
    ///
    /// # Errors
    /// One of the files can't be used; the error names it.
    pub fn connector(&self) -> Result<TlsConnector, TlsError> {
        if self.auto {
            return Ok(Arc::new(self.client(None, None, Vec::new())?).into());
        }
        Ok(Keeper::load(self.clone(), Use::Members)?.connector())
    }

    fn read_pair(&self) -> Result<Pair, TlsError> {
        Ok(Pair { cert: Pem::read(&self.cert)?, key: Pem::read(&self.key)? })
    }

    fn read_trust(&self) -> Result<Trust, TlsError> {
        let optional = |path: &Option<PathBuf>| path.as_deref().map(Pem::read).transpose();
        Ok(Trust { ca: optional(&self.ca)?, crl: optional(&self.crl)? })
    }

    fn present(&self, contents: Contents, purpose: Use) -> Result<Present, TlsError> {
        let (own, facts) = own(&contents.pair.cert, &contents.pair.key)?;
        let roots = contents.trust.ca.as_ref().map(roots).transpose()?;
        let crls = contents.trust.crl.as_ref().map(Pem::crls).transpose()?.unwrap_or_default();
        let trusted = roots.map(|roots| (roots, contents.trust.ca.as_ref().unwrap_or(&contents.pair.cert)));
        let mut server =
            self.server(&own, trusted.as_ref().map(|(roots, ca)| (roots, *ca)), &crls, purpose == Use::Members)?;
        server.alpn_protocols = match purpose {
            Use::Clients => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Use::Members => vec![MEMBERS_PROTOCOL.to_vec()],
        };
        let client =
            self.client(Some(own).filter(|_| !self.auto), trusted.as_ref().map(|(roots, ca)| (roots, *ca)), crls)?;
        Ok(Present { contents, server: Arc::new(server), client: Arc::new(client), facts })
    }

    fn server(
        &self,
        own: &Arc<CertifiedKey>,
        trusted: Option<(&Arc<RootCertStore>, &Pem)>,
        crls: &[CertificateRevocationListDer<'static>],
        members_only: bool,
    ) -> Result<ServerConfig, TlsError> {
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(self.oldest.versions());
        let builder = builder.expect(VERSIONS);
        let builder = match trusted {
            None => builder.with_no_client_auth(),
            Some((roots, ca)) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider());
                let verifier = verifier.with_crls(crls.iter().cloned()).allow_unknown_revocation_status().build();
                let inner = verifier.map_err(|why| self.wrong_list(ca, &why))?;
                builder.with_client_cert_verifier(Arc::new(Clients { inner, names: self.names.clone(), members_only }))
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(Arc::clone(own))));
        // A resumed session would skip the check of the other's certificate.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    fn client(
        &self,
        own: Option<Arc<CertifiedKey>>,
        trusted: Option<(&Arc<RootCertStore>, &Pem)>,
        crls: Vec<CertificateRevocationListDer<'static>>,
    ) -> Result<ClientConfig, TlsError> {
        let inner = match trusted {
            None => None,
            Some((roots, ca)) => {
                let verifier = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), provider());
                let verifier = verifier.with_crls(crls).allow_unknown_revocation_status().build();
                Some(verifier.map_err(|why| self.wrong_list(ca, &why))?)
            }
        };
        let verifier = Arc::new(Servers { inner, names: self.names.clone(), provider: provider() });
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(self.oldest.versions());
        let builder = builder.expect(VERSIONS).dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match own {
            Some(own) => builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(own))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![MEMBERS_PROTOCOL.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    fn wrong_list(&self, ca: &Pem, why: &dyn std::fmt::Display) -> TlsError {
        let file = self.crl.as_ref().map_or_else(|| ca.name.clone(), |path| path.display().to_string());
        TlsError { file, what: format!("can't be used: {why}") }
    }
}

pub(crate) const VERSIONS: &str = "the provider has cipher suites for both versions";

/// The CAs of a file.
pub(crate) fn roots(ca: &Pem) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in ca.certificates()? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::new(&ca.name, format!("has a damaged certificate: {error}")))?;
    }
    Ok(Arc::new(roots))
}

/// A certificate with its key. It must be valid today.
pub(crate) fn own(cert: &Pem, key: &Pem) -> Result<(Arc<CertifiedKey>, Facts), TlsError> {
    let chain = cert.certificates()?;
    let malformed = || TlsError::new(&cert.name, "has a malformed certificate");
    let facts = Facts::of(&chain[0]).ok_or_else(malformed)?;
    let certified = CertifiedKey::from_der(chain, key.key()?, &provider()).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsError::new(&key.name, format!("the private key does not belong to the certificate in {}", cert.name))
        }
        Error::InvalidCertificate(_) => malformed(),
        _ => TlsError::new(&key.name, "has a private key of a kind that can't be used: RSA, ECDSA or Ed25519 can"),
    })?;
    let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
    if now > facts.not_after {
        return Err(TlsError::new(&cert.name, format!("the certificate expired on {}", date(facts.not_after))));
    }
    if now < facts.not_before {
        let begin = date(facts.not_before);
        return Err(TlsError::new(&cert.name, format!("the certificate is not valid before {begin}")));
    }
    Ok((Arc::new(certified), facts))
}
