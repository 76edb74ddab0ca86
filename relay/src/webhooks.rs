//! Calls to addresses that submitters named: guarded, signed, bounded (`jobs-and-states` 7).
//!
//! A relay stands inside somebody's network, and an address comes from anybody who can submit. So private and
//! loopback targets are refused unless the operator allows them: by the address itself, by what its name resolves to at
//! the moment of connecting, and at every redirect.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dockframe_shared::Timestamp;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode};
use sha2::Sha256;
use url::{Host, Url};

use crate::error::chain;
use crate::queue::command::Called;

/// A receiver that takes longer is asked again later.
const LIMIT: Duration = Duration::from_secs(10);
const MAX_REDIRECTS: usize = 5;
const MAX_URL_BYTES: usize = 2048;
/// What Standard Webhooks puts before a secret.
const SECRET_PREFIX: &str = "whsec_";

/// Why an address is not called.
#[derive(Debug, thiserror::Error)]
enum BadTarget {
    #[error("not an http or https address")]
    NotHttp,
    #[error("an address of this relay's own network, which its operator does not allow")]
    Private,
}

/// A secret that cannot sign.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the secret for callbacks must be Base64, with or without `whsec_` before it")]
pub struct BadSecret;

/// What callbacks are signed with: Base64, as Standard Webhooks writes it, with or without `whsec_` before it.
#[derive(Clone, PartialEq, Eq)]
pub struct CallbackSecret(Vec<u8>);

impl std::str::FromStr for CallbackSecret {
    type Err = BadSecret;

    fn from_str(text: &str) -> Result<Self, BadSecret> {
        let key = STANDARD.decode(text.strip_prefix(SECRET_PREFIX).unwrap_or(text).trim());
        key.ok().filter(|key| !key.is_empty()).map(Self).ok_or(BadSecret)
    }
}

impl std::fmt::Debug for CallbackSecret {
    /// Never shows itself.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CallbackSecret")
    }
}

#[derive(Clone)]
pub(crate) struct Webhooks {
    client: Client,
    secret: Option<CallbackSecret>,
    allow_private: bool,
}

impl std::fmt::Debug for Webhooks {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhooks").field("signs", &self.secret.is_some()).finish_non_exhaustive()
    }
}

/// One call.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub url: &'a str,
    /// The same for all tries of one callback.
    pub id: &'a str,
    pub body: String,
    pub now: Timestamp,
}

impl Webhooks {
    pub(crate) fn new(secret: Option<CallbackSecret>, allow_private: bool) -> Result<Self, reqwest::Error> {
        // Another part of the process may have chosen one already.
        drop(rustls::crypto::ring::default_provider().install_default());
        let redirects = Policy::custom(move |attempt| {
            if attempt.previous().len() > MAX_REDIRECTS {
                return attempt.error("too many redirects");
            }
            match check(attempt.url(), allow_private) {
                Ok(()) => attempt.follow(),
                Err(error) => attempt.error(error),
            }
        });
        let client = Client::builder()
            .timeout(LIMIT)
            .redirect(redirects)
            .no_proxy()
            .user_agent(crate::NAME)
            .dns_resolver(Arc::new(Guarded { allow_private }))
            .build()?;
        Ok(Self { client, secret, allow_private })
    }

    pub(crate) async fn make(&self, call: Call<'_>) -> Called {
        let Call { url, id, body, now } = call;
        let parsed = Url::parse(url).ok().filter(|_| url.len() <= MAX_URL_BYTES);
        let Some(target) = parsed.filter(|target| check(target, self.allow_private).is_ok()) else {
            tracing::info!(callback.id = id, "a callback's address is not allowed");
            return Called::Refused;
        };
        let time = (now.as_millis() / 1000).to_string();
        let mut request = self
            .client
            .post(target)
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", &time);
        if let Some(signature) = self.sign(id, &time, &body) {
            request = request.header("webhook-signature", signature);
        }
        match request.body(body).send().await {
            Ok(answer) if answer.status().is_success() => Called::Made,
            Ok(answer) if answer.status() == StatusCode::GONE => Called::Refused,
            Ok(answer) => {
                tracing::debug!(
                    callback.id = id,
                    status = answer.status().as_u16(),
                    "a callback was not taken"
                );
                Called::Again
            }
            Err(error) => {
                // Addresses hold tokens at times: the error without its address.
                let error = error.without_url();
                tracing::debug!(callback.id = id, error = chain(&error), "a callback did not arrive");
                Called::Again
            }
        }
    }

    /// `v1,` and the Base64 of HMAC-SHA256 over id, time and body.
    fn sign(&self, id: &str, time: &str, body: &str) -> Option<String> {
        let CallbackSecret(key) = self.secret.as_ref()?;
        // HMAC takes keys of any length.
        let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
        for part in [id, ".", time, ".", body] {
            mac.update(part.as_bytes());
        }
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    }
}

fn check(url: &Url, allow_private: bool) -> Result<(), BadTarget> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(BadTarget::NotHttp);
    }
    let address: Option<IpAddr> = match url.host() {
        Some(Host::Ipv4(address)) => Some(address.into()),
        Some(Host::Ipv6(address)) => Some(address.into()),
        // Judged when it is resolved.
        Some(Host::Domain(_)) => None,
        None => return Err(BadTarget::NotHttp),
    };
    if !allow_private && address.is_some_and(is_private) {
        return Err(BadTarget::Private);
    }
    Ok(())
}

/// Whether an address is not one of the public internet.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_broadcast()
                || v4.is_multicast()
                || v4.is_documentation()
                || a == 0
                || a >= 240
                // Shared between carriers and their customers, and for benchmarks.
                || (a == 100 && (64..128).contains(&b))
                || (a == 198 && (18..20).contains(&b))
        }
        IpAddr::V6(v6) => {
            if let Some(v4) = v6.to_ipv4_mapped() {
                return is_private(v4.into());
            }
            let [first, second, ..] = v6.segments();
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
                // Those that carry an IPv4 address inside.
                || first == 0x2002
                || (first == 0x64 && second == 0xff9b)
        }
    }
}

/// Resolves names, and gives only addresses that may be called.
struct Guarded {
    allow_private: bool,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|address| allow_private || !is_private(address.ip())).collect();
            if allowed.is_empty() {
                return Err(Box::new(BadTarget::Private).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_own_network_are_known() {
        for own in ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "0.0.0.0", "100.64.0.1"] {
            assert!(is_private(own.parse().unwrap()), "{own}");
        }
        for own in ["::1", "fd00::1", "fe80::1", "::ffff:127.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1"] {
            assert!(is_private(own.parse().unwrap()), "{own}");
        }
        for public in ["1.1.1.1", "8.8.8.8", "2606:4700::1111", "100.128.0.1"] {
            assert!(!is_private(public.parse().unwrap()), "{public}");
        }
    }

    #[tokio::test]
    async fn private_targets_are_refused_by_address_and_by_name() {
        let webhooks = Webhooks::new(None, false).unwrap();
        for url in [
            "http://127.0.0.1:1/",
            "http://[::1]:1/",
            "ftp://example.org/",
            "not a url",
            "http://2130706433/",
        ] {
            let call = Call { url, id: "i", body: String::new(), now: Timestamp::default() };
            assert_eq!(webhooks.make(call).await, Called::Refused, "{url}");
        }
        let by_name =
            Call { url: "http://localhost:1/", id: "i", body: String::new(), now: Timestamp::default() };
        assert_eq!(webhooks.make(by_name).await, Called::Again);
    }

    /// The example of the Standard Webhooks specification.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let webhooks = Webhooks::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().ok(), false).unwrap();
        let signature =
            webhooks.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", r#"{"test": 2432232314}"#);
        assert_eq!(signature.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
        assert_eq!("not base64!".parse::<CallbackSecret>(), Err(BadSecret));
    }
}
