//! Where a git repository is served (`worker` 10.4, 22.1 B7).
//!
//! The git program would follow redirects, and resolve names, by itself and unchecked. So both are done here, in the
//! way of every other download, and git is told the outcome: an address that redirects no more, and what its name
//! leads to.

use std::net::{IpAddr, SocketAddr};

use reqwest::Response;
use reqwest::header::{CONTENT_TYPE, USER_AGENT};
use tokio::time::sleep;
use url::{Host, Url};

use super::public::{PRIVATE, public_addresses};
use super::{ATTEMPTS, Http, HttpError, MAX_REDIRECTS, backoff, next_hop, transport};

/// What every client asks of a repository first.
const QUESTION: &str = "/info/refs?service=git-upload-pack";
const ANSWER: &str = "application/x-git-upload-pack-advertisement";
/// Some servers let only git itself pass.
const AGENT: &str = concat!("git/2.37 (dockframe/", env!("CARGO_PKG_VERSION"), ")");

/// A repository that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Served {
    /// Where it is after all redirects. With the credential, if it is one for there.
    pub(crate) url: Url,
    /// `host:port:address,…`, to be connected to and nothing else.
    pub(crate) pin: Option<String>,
    pub(crate) ignore_certificates: bool,
}

impl Http {
    /// Finds out where a repository is served, trying again while the server has trouble.
    pub(crate) async fn repository(&self, url: &Url) -> Result<Served, HttpError> {
        let mut attempt = 0;
        loop {
            match self.repository_once(url).await {
                Err(error) if error.is_transient() && attempt + 1 < ATTEMPTS => {
                    sleep(backoff(attempt)).await;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    async fn repository_once(&self, url: &Url) -> Result<Served, HttpError> {
        let trusted = self.allow_private || self.is_relay(url);
        let mut url = question(url)?;
        for _ in 0..=MAX_REDIRECTS {
            let request = self
                .client(&url, trusted)?
                .get(url.clone())
                .header(USER_AGENT, AGENT)
                .header("git-protocol", "version=2");
            let response = request.send().await.map_err(|error| transport(&error))?;
            match response.status() {
                status if status.is_success() && is_smart(&response) => {
                    let url = base(&url)?;
                    let pin = if trusted { None } else { pin(&url).await? };
                    return Ok(Served { url, pin, ignore_certificates: self.ignore_certificates });
                }
                status if status.is_success() => return Err(HttpError::NoRepository),
                status if status.is_redirection() => {
                    let next = next_hop(&url, &response)?;
                    url = with_credential(next, &url);
                }
                status => return Err(HttpError::Status(status)),
            }
        }
        Err(HttpError::Redirects)
    }
}

fn is_smart(response: &Response) -> bool {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().is_some_and(|kind| kind.trim() == ANSWER)
}

fn question(repository: &Url) -> Result<Url, HttpError> {
    let mut repository = repository.clone();
    repository.set_query(None);
    repository.set_fragment(None);
    Url::parse(&format!("{}{QUESTION}", repository.as_str().trim_end_matches('/')))
        .map_err(|_| HttpError::BadRedirect)
}

/// The repository that the question was put to. One that is asked elsewhere in another way is not followed.
fn base(question: &Url) -> Result<Url, HttpError> {
    let base = question.as_str().strip_suffix(QUESTION).ok_or(HttpError::BadRedirect)?;
    let mut url = Url::parse(base).map_err(|_| HttpError::BadRedirect)?;
    // Clients differ in what a final dot means; without one there is one way to read the name.
    if let Some(host) = url.host_str().and_then(|host| host.strip_suffix('.')).map(str::to_owned) {
        url.set_host(Some(&host)).map_err(|_| HttpError::BadRedirect)?;
    }
    Ok(url)
}

/// A credential goes on to the same server and to no other.
fn with_credential(mut next: Url, from: &Url) -> Url {
    if next.origin() == from.origin() && next.username().is_empty() && next.password().is_none() {
        // These fail for addresses without a host, which have the same origin as none.
        let _ = next.set_username(from.username());
        let _ = next.set_password(from.password());
    }
    next
}

async fn pin(url: &Url) -> Result<Option<String>, HttpError> {
    // An address in place of a name was checked already.
    let Some(Host::Domain(name)) = url.host() else { return Ok(None) };
    let port = url.port_or_known_default().unwrap_or_default();
    let found = public_addresses(name).await.map_err(|error| match error.to_string() {
        text if text == PRIVATE => HttpError::Private,
        text => HttpError::Transport(text),
    })?;
    Ok(Some(pinned(name, port, &found)))
}

fn pinned(name: &str, port: u16, addresses: &[SocketAddr]) -> String {
    let addresses: Vec<String> = addresses
        .iter()
        .map(|address| match address.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        })
        .collect();
    format!("{name}:{port}:{}", addresses.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn a_repository_is_asked_and_found_again_by_its_question() {
        for (repository, base_of) in [
            ("https://h/x.git", "https://h/x.git"),
            ("https://h/x.git/?y#z", "https://h/x.git"),
            ("https://u:t@h./x", "https://u:t@h/x"),
        ] {
            assert_eq!(base(&question(&url(repository)).unwrap()).unwrap().as_str(), base_of);
        }
        assert!(base(&url("https://h/login?back=x")).is_err());
    }

    #[test]
    fn a_credential_stays_with_its_server() {
        let from = url("https://u:t@h/x");
        assert_eq!(with_credential(url("https://h/y"), &from).as_str(), "https://u:t@h/y");
        for other in ["https://other/y", "http://h/y", "https://h:444/y"] {
            assert_eq!(with_credential(url(other), &from).as_str(), other);
        }
    }

    #[test]
    fn what_was_checked_is_what_git_connects_to() {
        let addresses = ["1.1.1.1:0".parse().unwrap(), "[2606:4700::1111]:0".parse().unwrap()];
        assert_eq!(pinned("h", 443, &addresses), "h:443:1.1.1.1,[2606:4700::1111]");
    }

    #[tokio::test]
    async fn repositories_in_private_networks_are_refused() {
        crate::install_crypto();
        let http = Http::new("https://relay.example", false, false, 1000).unwrap();
        for address in ["http://127.0.0.1:1/x.git", "http://localhost:1/x.git", "http://1.1.1.1:2375/x.git"] {
            let refused = http.repository(&url(address)).await;
            assert!(matches!(refused, Err(HttpError::Private)), "{address}: {refused:?}");
        }
    }
}
