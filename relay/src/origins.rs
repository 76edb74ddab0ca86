//! Which web pages may use a relay (`worker` 18, W65).
//!
//! The name of a queue is the only key to it. On somebody's own computer the queue `local` has a name that everybody
//! knows: there any web page that its user visits could run containers, were it not for this guard. Programs, which
//! send no `Origin`, are not meant by it.

use http::HeaderValue;
use url::{Host, Origin, Url};

/// The web pages that are answered.
#[derive(Debug, Clone, Default)]
pub enum Origins {
    /// All: the queues' names are secrets.
    #[default]
    Any,
    /// Pages from this computer, from the relay itself, and from these sites.
    Own(Vec<Origin>),
}

impl Origins {
    /// Pages from this computer and the relay itself, and from the sites of these addresses.
    pub fn own<'a>(sites: impl IntoIterator<Item = &'a Url>) -> Self {
        Self::Own(sites.into_iter().map(Url::origin).collect())
    }

    /// Whether a page of this origin is answered. `host` is what its request calls the relay.
    pub(crate) fn allow(&self, origin: Option<&HeaderValue>, host: Option<&HeaderValue>) -> bool {
        let (Self::Own(sites), Some(origin)) = (self, origin) else { return true };
        // `null` is what a sandboxed page or a file says: it can be anybody's.
        let Some(url) = origin.to_str().ok().and_then(|origin| Url::parse(origin).ok()) else {
            return false;
        };
        let is_of_this_computer = match url.host() {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => return false,
        };
        // The relay's own page, seen from another computer. Only by an address: a name may be made to lead here by
        // whoever owns it, and then says no more of the page than that its author knows the trick.
        let is_own_page = !matches!(url.host(), Some(Host::Domain(_)))
            && host.and_then(|host| host.to_str().ok()).is_some_and(|host| {
                Url::parse(&format!("{}://{host}", url.scheme()))
                    .is_ok_and(|own| own.origin() == url.origin())
            });
        is_of_this_computer || is_own_page || sites.contains(&url.origin())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(origins: &Origins, origin: &str, host: &str) -> bool {
        let value = |text: &str| HeaderValue::from_str(text).unwrap();
        origins.allow(Some(&value(origin)), Some(&value(host)))
    }

    #[test]
    fn own_pages_and_named_sites_are_answered_and_no_others() {
        let origins = Origins::own([&Url::parse("https://site.example/page").unwrap()]);
        let here = "127.0.0.1:8000";
        for own in ["http://127.0.0.1:8000", "http://localhost:9000", "http://a.localhost", "http://[::1]:1"]
        {
            assert!(allow(&origins, own, here), "{own}");
        }
        assert!(allow(&origins, "https://site.example", here));
        assert!(allow(&origins, "http://192.168.1.5:8000", "192.168.1.5:8000"));
        for foreign in [
            "https://evil.example",
            "http://site.example",
            "https://site.example:444",
            "https://site.example.evil.example",
            "http://localhost.evil.example",
            "http://192.168.1.6:8000",
            "null",
            "",
        ] {
            assert!(!allow(&origins, foreign, here), "{foreign}");
        }
        assert!(origins.allow(None, None), "a program");
    }

    #[test]
    fn a_name_that_was_made_to_lead_here_is_foreign() {
        assert!(!allow(&Origins::own([]), "http://evil.example:8000", "evil.example:8000"));
    }

    #[test]
    fn a_relay_of_secret_queues_answers_all() {
        assert!(allow(&Origins::Any, "null", "a"));
    }
}
