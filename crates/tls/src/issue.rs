//! Makes certificates: a CA with those of its members and clients, or one that signs itself.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
    date_time_ymd,
};
use rustls::pki_types::UnixTime;

use crate::facts::Facts;
use crate::files::{Pem, TlsError};
use crate::keeper::own;

/// Seconds of a day.
pub const DAY: i64 = 86_400;

/// A certificate and its private key, as PEM texts. It can't be printed by mistake.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("cert", &self.cert).finish_non_exhaustive()
    }
}

impl Pair {
    /// Writes both into files that only their owner may read; each is whole at any time.
    ///
    /// # Errors
    /// A file can't be written.
    pub fn write(&self, cert: &Path, key: &Path) -> Result<(), TlsError> {
        write(key, &self.key)?;
        write(cert, &self.cert)
    }
}

/// Replaces a file by a text. Only its owner may read it; it is whole at any time.
///
/// # Errors
/// It can't be written.
pub fn write(path: &Path, text: &str) -> Result<(), TlsError> {
    let wrong =
        |error: std::io::Error| TlsError::new(&path.display().to_string(), format!("can't be written: {error}"));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    // One that an earlier attempt left might be open to others.
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(wrong)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(wrong)?;
    fs::rename(&new, path).map_err(wrong)
}

/// When a certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// From when.
    pub begin: i64,
    /// Until when.
    pub end: i64,
}

impl Span {
    /// From an hour ago, because clocks differ, until so many days from now.
    #[must_use]
    pub fn days(days: u32) -> Span {
        let now = now();
        Span { begin: now - 3_600, end: now + i64::from(days) * DAY }
    }
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> i64 {
    i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX)
}

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A member, which accepts connections and makes some.
    Member,
    /// A client, which only makes connections.
    Client,
}

/// Whose certificate it is.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// The common name.
    pub name: &'a str,
    /// The host names and IP addresses.
    pub hosts: &'a [String],
    /// What it is for.
    pub role: Role,
    /// When it is valid.
    pub span: Span,
}

/// A CA: what signs certificates.
pub struct Ca {
    pair: Pair,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca").field("pair", &self.pair).finish_non_exhaustive()
    }
}

impl Ca {
    /// Makes a CA of this common name.
    ///
    /// # Errors
    /// The name can't be in a certificate.
    pub fn new(name: &str, span: Span) -> Result<Ca, TlsError> {
        let mut params = params(name, &[], span)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let key = generate()?;
        let certificate = params.self_signed(&key).map_err(|error| refused(&error))?;
        let pair = Pair { cert: certificate.pem(), key: key.serialize_pem() };
        Ok(Ca { pair, issuer: Issuer::new(params, key) })
    }

    /// Loads a CA from its files.
    ///
    /// # Errors
    /// One of them can't be used, or the CA has expired.
    pub fn load(cert: &Path, key: &Path) -> Result<Ca, TlsError> {
        let (cert, key) = (Pem::read(cert)?, Pem::read(key)?);
        // That the two belong together and are valid today.
        own(&cert, &key)?;
        let wrong = |what: &str| TlsError::new(&cert.name, what);
        let certificate = cert.certificates()?.swap_remove(0);
        if !Facts::of(&certificate).is_some_and(|facts| facts.is_ca) {
            return Err(wrong("is no certificate of a CA"));
        }
        let unusable = || TlsError::new(&key.name, "has a private key of a kind that `bowline cert` can't use");
        let pair = KeyPair::try_from(&key.key()?).map_err(|_| unusable())?;
        let issuer = Issuer::from_ca_cert_der(&certificate, pair).map_err(|_| wrong("can't be used to sign"))?;
        let texts = Pair { cert: cert.text(), key: key.text() };
        Ok(Ca { pair: texts, issuer })
    }

    /// The CA's own certificate and key.
    #[must_use]
    pub fn pair(&self) -> &Pair {
        &self.pair
    }

    /// Makes a certificate with a new key.
    ///
    /// # Errors
    /// A name can't be in a certificate.
    pub fn issue(&self, order: &Order<'_>) -> Result<Pair, TlsError> {
        let (key, params) = (generate()?, leaf(order)?);
        let certificate = params.signed_by(&key, &self.issuer).map_err(|error| refused(&error))?;
        Ok(Pair { cert: certificate.pem(), key: key.serialize_pem() })
    }

    /// Makes a list of revoked certificates, given by their PEM texts, as a PEM text.
    ///
    /// # Errors
    /// A text has no certificate.
    pub fn revoke(&self, certificates: &[&str], span: Span) -> Result<String, TlsError> {
        let mut revoked_certs = Vec::new();
        for text in certificates {
            let certificates = Pem::new("the certificate", text.as_bytes()).certificates()?;
            let malformed = || TlsError::new("the certificate", "is malformed");
            let facts = Facts::of(&certificates[0]).ok_or_else(malformed)?;
            let digits = facts.serial.as_bytes().chunks(2);
            let bytes = digits.filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
            revoked_certs.push(RevokedCertParams {
                serial_number: SerialNumber::from(bytes.collect::<Vec<u8>>()),
                revocation_time: date_time_ymd(1970, 1, 1) + since(span.begin),
                reason_code: None,
                invalidity_date: None,
            });
        }
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(1970, 1, 1) + since(span.begin),
            next_update: date_time_ymd(1970, 1, 1) + since(span.end),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).and_then(|list| list.pem()).map_err(|error| refused(&error))
    }
}

/// Makes a certificate that signs itself.
///
/// # Errors
/// A name can't be in a certificate.
pub fn self_signed(order: &Order<'_>) -> Result<Pair, TlsError> {
    let (key, params) = (generate()?, leaf(order)?);
    let certificate = params.self_signed(&key).map_err(|error| refused(&error))?;
    Ok(Pair { cert: certificate.pem(), key: key.serialize_pem() })
}

fn leaf(order: &Order<'_>) -> Result<CertificateParams, TlsError> {
    let mut params = params(order.name, order.hosts, order.span)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match order.role {
        Role::Member => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        Role::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
    };
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn params(name: &str, hosts: &[String], span: Span) -> Result<CertificateParams, TlsError> {
    let mut params = CertificateParams::new(hosts).map_err(|error| refused(&error))?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) =
        (date_time_ymd(1970, 1, 1) + since(span.begin), date_time_ymd(1970, 1, 1) + since(span.end));
    Ok(params)
}

/// The time since 1970, up to the year 9999.
fn since(seconds: i64) -> Duration {
    Duration::from_secs(seconds.clamp(0, 253_402_300_799).unsigned_abs())
}

fn generate() -> Result<KeyPair, TlsError> {
    KeyPair::generate().map_err(|error| refused(&error))
}

fn refused(error: &rcgen::Error) -> TlsError {
    TlsError::new("the certificate", format!("can't be made: {error}"))
}
