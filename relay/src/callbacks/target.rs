//! Where callbacks may go: to the public internet, by the address that was judged.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use dockframe_shared::net::is_public;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Method, RequestBuilder, redirect};
use rustls::{ClientConfig, RootCertStore};
use url::{Host, Url};

use super::Outcome;
use crate::queue::timing::CALL_LIMIT;

/// An address that is not called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("its address is neither http nor https")]
    Scheme,
    #[error(
        "its address leads to a private network, which this relay calls only with --allow-private-callbacks"
    )]
    Private,
}

#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    allow_private: bool,
}

impl Client {
    pub(super) fn new(allow_private: bool) -> Result<Self, reqwest::Error> {
        let limit = Duration::from_millis(CALL_LIMIT.unsigned_abs());
        let builder = || {
            let builder = reqwest::Client::builder()
                // Each step is judged, so each is taken by hand.
                .redirect(redirect::Policy::none())
                // A proxy would connect to addresses that nobody judged.
                .no_proxy()
                .timeout(limit)
                .pool_max_idle_per_host(1)
                .user_agent(crate::NAME);
            if allow_private { builder } else { builder.dns_resolver(PublicOnly) }
        };
        // The system's own certificates where it has any.
        let http = match builder().build() {
            Ok(http) => http,
            Err(_) => builder().tls_backend_preconfigured(public_roots()).build()?,
        };
        Ok(Self { http, allow_private })
    }

    pub(super) fn request(&self, method: Method, url: &Url) -> Result<RequestBuilder, Refusal> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Refusal::Scheme);
        }
        // Names are judged when they are resolved.
        let address: Option<IpAddr> = match url.host() {
            Some(Host::Ipv4(ip)) => Some(ip.into()),
            Some(Host::Ipv6(ip)) => Some(ip.into()),
            Some(Host::Domain(_)) | None => None,
        };
        if !self.allow_private && address.is_some_and(|ip| !is_public(ip)) {
            return Err(Refusal::Private);
        }
        Ok(self.http.request(method, url.clone()))
    }
}

/// For a system without certificates of its own, such as an image that holds only this program: the public ones.
fn public_roots() -> ClientConfig {
    let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()
}

/// Resolves names, and refuses those that lead anywhere private: what is returned is what is connected to.
#[derive(Debug, Clone, Copy)]
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if found.iter().any(|address| !is_public(address.ip())) {
                return Err(Refusal::Private.into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// What an attempt without an answer came to, in words without its address, which may hold secrets.
pub(super) fn failure(error: &reqwest::Error) -> Outcome {
    let mut text = "not reached".to_owned();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(refusal) = inner.downcast_ref::<Refusal>() {
            return Outcome::Refused(refusal.to_string());
        }
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    Outcome::Failed(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guarded() -> Client {
        crate::install_crypto();
        Client::new(false).unwrap()
    }

    #[test]
    fn private_addresses_are_refused_in_every_form() {
        let client = guarded();
        for address in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://[::1]:80/",
            "http://[::ffff:10.0.0.1]/",
            "http://169.254.169.254/latest/meta-data",
            "https://192.168.0.1/",
        ] {
            let url = Url::parse(address).unwrap();
            assert_eq!(client.request(Method::POST, &url).err(), Some(Refusal::Private), "{address}");
        }
        let url = Url::parse("ftp://example.com/").unwrap();
        assert_eq!(client.request(Method::POST, &url).err(), Some(Refusal::Scheme));
        assert!(client.request(Method::POST, &Url::parse("https://1.1.1.1/").unwrap()).is_ok());
    }

    #[tokio::test]
    async fn names_are_judged_by_what_they_resolve_to() {
        let url = Url::parse("http://localhost:1/").unwrap();
        let error = guarded().request(Method::POST, &url).unwrap().send().await.unwrap_err();
        assert_eq!(failure(&error), Outcome::Refused(Refusal::Private.to_string()));
    }
}
