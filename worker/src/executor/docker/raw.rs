//! The one call that the client library cannot make: a build whose progress comes in BuildKit's own format.

use std::path::{Path, PathBuf};

use reqwest::{Body, Client, Response};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use url::Url;

use crate::tls::public_roots;

/// An Engine, spoken to by plain HTTP.
#[derive(Debug, Clone)]
pub(super) struct RawEngine {
    client: Client,
    /// Without a slash at its end.
    base: String,
}

impl RawEngine {
    /// For an address as `DOCKER_HOST` has it, and the API version that was agreed on.
    pub(super) fn new(address: &str, certificates: Option<&Path>, version: &str) -> Result<Self, String> {
        // Given always, so that nothing is looked for on a system that has no certificates.
        let certificates = certificates.filter(|_| !address.starts_with("unix://"));
        let roots = certificates.map_or_else(|| Ok(public_roots()), tls)?;
        let builder = Client::builder().no_proxy().tls_backend_preconfigured(roots);
        let (builder, base) = if let Some(socket) = address.strip_prefix("unix://") {
            (builder.unix_socket(PathBuf::from(socket)), "http://docker".to_owned())
        } else {
            let (_, host) = address.split_once("://").unwrap_or(("", address));
            let scheme = if certificates.is_some() { "https" } else { "http" };
            (builder, format!("{scheme}://{host}"))
        };
        let client = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { client, base: format!("{}/v{version}", base.trim_end_matches('/')) })
    }

    /// Begins a build; its progress is the answer's body.
    pub(super) async fn build(&self, query: &[(&str, String)], context: Body) -> Result<Response, String> {
        let mut url = Url::parse(&format!("{}/build", self.base)).map_err(|error| error.to_string())?;
        url.query_pairs_mut().extend_pairs(query);
        let request = self.client.post(url).header("content-type", "application/x-tar").body(context);
        request.send().await.map_err(|error| error.without_url().to_string())
    }
}

/// As the `docker` command: the owner's certificate, and servers of the owner's authority alone.
fn tls(directory: &Path) -> Result<ClientConfig, String> {
    let failed =
        |name: &str, why: &dyn std::fmt::Display| format!("{}: {why}", directory.join(name).display());
    let certificates = |name: &str| {
        CertificateDer::pem_file_iter(directory.join(name))
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| failed(name, &error))
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca.pem")? {
        roots.add(certificate).map_err(|error| failed("ca.pem", &error))?;
    }
    let key =
        PrivateKeyDer::from_pem_file(directory.join("key.pem")).map_err(|error| failed("key.pem", &error))?;
    ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates("cert.pem")?, key)
        .map_err(|error| failed("cert.pem", &error))
}
