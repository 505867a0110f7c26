//! How a command connects with TLS.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use bowline_client::{Client, ClientFiles};
use clap::Args;

/// The files for TLS. Endpoints without a scheme are with TLS if any of them is given.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct TlsArgs {
    // Requests have arguments such as `key`, so the ids differ from the names.
    /// File with the CAs of the members, in PEM [default: $BOWLINE_CACERT, $ETCDCTL_CACERT, or for https:// those of
    /// the system]
    #[arg(id = "tls_cacert", long = "cacert", value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// File with the certificate of this client, in PEM [default: $BOWLINE_CERT, $ETCDCTL_CERT]
    #[arg(id = "tls_cert", long = "cert", value_name = "FILE")]
    cert: Option<PathBuf>,
    /// File with its private key [default: $BOWLINE_KEY, $ETCDCTL_KEY]
    #[arg(id = "tls_key", long = "key", value_name = "FILE")]
    key: Option<PathBuf>,
    /// Accept any certificate: whoever answers may be anybody [default: $BOWLINE_INSECURE_SKIP_TLS_VERIFY,
    /// $ETCDCTL_INSECURE_SKIP_TLS_VERIFY]
    #[arg(long)]
    insecure_skip_tls_verify: bool,
}

impl TlsArgs {
    /// A client of these endpoints.
    pub(crate) fn client(&self, endpoints: &[String], patience: Duration) -> anyhow::Result<Client> {
        let file = |given: &Option<PathBuf>, name: &str| given.clone().or_else(|| variable(name).map(PathBuf::from));
        let (ca, skip) = (file(&self.cacert, "CACERT"), "INSECURE_SKIP_TLS_VERIFY");
        let skip_verification = self.insecure_skip_tls_verify
            || match variable(skip).as_ref().map(|value| value.to_str()) {
                None | Some(Some("false" | "0")) => false,
                Some(Some("true" | "1")) => true,
                Some(value) => bail!("BOWLINE_{skip} or ETCDCTL_{skip} is {value:?}; allowed: true, false"),
            };
        let identity = match (file(&self.cert, "CERT"), file(&self.key, "KEY")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => bail!("--cert is given without --key: a certificate is used with its private key"),
            (None, Some(_)) => bail!("--key is given without --cert: a private key is used with its certificate"),
        };
        let files = ClientFiles { ca, identity, skip_verification };
        let wanted = endpoints.iter().any(|endpoint| endpoint.trim().starts_with("https://"));
        if files == ClientFiles::default() && !wanted {
            return Ok(Client::new(endpoints, patience)?);
        }
        Ok(Client::with_tls(endpoints, patience, &files.load()?)?)
    }
}

/// The value of `BOWLINE_NAME`, or of `ETCDCTL_NAME`.
pub(super) fn variable(name: &str) -> Option<std::ffi::OsString> {
    let told = |prefix: &str| std::env::var_os(format!("{prefix}_{name}")).filter(|value| !value.is_empty());
    told("BOWLINE").or_else(|| told("ETCDCTL"))
}

/// The files for TLS at a second cluster.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct DestTlsArgs {
    /// File with the CAs of the members of TO [default: as for FROM]
    #[arg(long, value_name = "FILE")]
    dest_cacert: Option<PathBuf>,
    /// File with the certificate of this client for TO [default: as for FROM]
    #[arg(long, value_name = "FILE")]
    dest_cert: Option<PathBuf>,
    /// File with its private key.
    #[arg(long, value_name = "FILE")]
    dest_key: Option<PathBuf>,
}

impl DestTlsArgs {
    /// What is given here, and for the rest what is given for the first cluster.
    pub(crate) fn over(self, first: &TlsArgs) -> TlsArgs {
        let DestTlsArgs { dest_cacert, dest_cert, dest_key } = self;
        let own = dest_cert.is_some() || dest_key.is_some();
        let (cert, key) = if own { (dest_cert, dest_key) } else { (first.cert.clone(), first.key.clone()) };
        TlsArgs { cacert: dest_cacert.or_else(|| first.cacert.clone()), cert, key, ..first.clone() }
    }
}
