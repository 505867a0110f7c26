//! Reads PEM files: certificates, keys and lists of revoked certificates.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

/// Largest file with certificates, a key or a list of revoked certificates, in bytes.
pub const MAX_FILE_BYTES: u64 = 4 << 20;

/// What is wrong with a file. It never contains any of a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {what}")]
pub struct TlsError {
    /// The file.
    pub file: String,
    /// What is wrong with it.
    pub what: String,
}

impl TlsError {
    pub(crate) fn new(file: &str, what: impl Into<String>) -> TlsError {
        TlsError { file: file.to_owned(), what: what.into() }
    }
}

/// The contents of a PEM file. It may have a key, so it can't be printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Pem {
    /// The file, for errors.
    pub(crate) name: String,
    bytes: Vec<u8>,
}

impl Pem {
    pub(crate) fn new(name: &str, bytes: &[u8]) -> Pem {
        Pem { name: name.to_owned(), bytes: bytes.to_owned() }
    }

    pub(crate) fn read(path: &Path) -> Result<Pem, TlsError> {
        let name = path.display().to_string();
        let wrong = |error: std::io::Error| match error.kind() {
            ErrorKind::NotFound => TlsError::new(&name, "there is no such file"),
            _ => TlsError::new(&name, format!("can't be read: {error}")),
        };
        let mut bytes = Vec::new();
        File::open(path).map_err(wrong)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(wrong)?;
        match bytes.len() as u64 > MAX_FILE_BYTES {
            true => Err(TlsError::new(&name, format!("has more than {MAX_FILE_BYTES} bytes, the most that is read"))),
            false => Ok(Pem { name, bytes }),
        }
    }

    /// The whole text.
    #[cfg(feature = "issue")]
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// All certificates: at least one.
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        self.all("certificate", "CERTIFICATE")
    }

    /// All lists of revoked certificates: at least one.
    pub(crate) fn crls(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
        self.all("list of revoked certificates", "X509 CRL")
    }

    /// The private key.
    pub(crate) fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        // What is wrong with a key is not told in more detail, because that could tell something of the key.
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|_| {
            let encrypted = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";
            let what = match self.bytes.windows(encrypted.len()).any(|window| window == encrypted) {
                true => "the private key is encrypted with a password: decrypt it first (openssl pkey)",
                false => "has no private key in PEM (-----BEGIN PRIVATE KEY-----), or a damaged one",
            };
            TlsError::new(&self.name, what)
        })
    }

    fn all<T: PemObject>(&self, what: &str, label: &str) -> Result<Vec<T>, TlsError> {
        let read: Result<Vec<T>, _> = T::pem_slice_iter(&self.bytes).collect();
        let read = read.map_err(|_| TlsError::new(&self.name, format!("has a damaged {what}")))?;
        match read.is_empty() {
            true => Err(TlsError::new(&self.name, format!("has no {what} in PEM (-----BEGIN {label}-----)"))),
            false => Ok(read),
        }
    }
}

/// The certificates in a file: at least one.
///
/// # Errors
/// The file can't be read, has more than [`MAX_FILE_BYTES`], or has no certificate.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    Pem::read(path)?.certificates()
}
