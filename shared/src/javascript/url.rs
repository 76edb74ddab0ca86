//! `new URL(text)` for `http:` and `https:` addresses: origin and path as browsers write them.
//!
//! Written here because the crate for all URLs brings Unicode's tables for host names, which would double the size
//! of the page. A test holds it against that crate. Hosts are ASCII names and IP addresses in their usual form;
//! other letters stay as they are, for the browser to encode, and rare forms (`http://0x7f.1/`) are no URL here.

use std::net::{Ipv4Addr, Ipv6Addr};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

/// What is percent-encoded in a path. `%` stays as it is.
pub const PATH: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'?').add(b'`').add(b'{').add(b'}');

/// An `http:` or `https:` address without its user, search and hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpUrl {
    /// `scheme://host[:port]`, no slash at the end, the scheme's own port left out.
    pub origin: String,
    /// Begins with `/`; dots are resolved.
    pub path: String,
}

impl HttpUrl {
    /// None for a text that does not begin with `http://` or `https://`, or has no such host or port.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text: String =
            text.trim_matches(|c| c <= ' ').chars().filter(|c| !matches!(c, '\t' | '\n' | '\r')).collect();
        let (scheme, own_port, rest) = match text.strip_prefix("http://") {
            Some(rest) => ("http", 80, rest),
            None => ("https", 443, text.strip_prefix("https://")?),
        };
        let rest = rest.trim_start_matches(['/', '\\']);
        let (authority, rest) = rest.split_at(rest.find(['/', '\\', '?', '#']).unwrap_or(rest.len()));
        let (host, port) = host_and_port(authority.rsplit_once('@').map_or(authority, |(_, host)| host))?;
        let port = port.filter(|port| *port != own_port).map(|port| format!(":{port}")).unwrap_or_default();
        let path = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
        Some(Self { origin: format!("{scheme}://{host}{port}"), path: resolved(path) })
    }
}

fn host_and_port(text: &str) -> Option<(String, Option<u16>)> {
    let end = if text.starts_with('[') { text.find(']')? + 1 } else { text.find(':').unwrap_or(text.len()) };
    let (host, port) = text.split_at(end);
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => None,
        Some("") => None,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
        Some(_) | None => return None,
    };
    Some((host_name(host)?, port))
}

fn host_name(text: &str) -> Option<String> {
    if let Some(address) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        let address: Ipv6Addr = address.parse().ok()?;
        // Browsers write these in another way than Rust.
        return address.to_ipv4_mapped().is_none().then(|| format!("[{address}]"));
    }
    let is_part = |c: char| c.is_alphanumeric() || "-._~!$&'()*+,;=".contains(c);
    if text.is_empty() || !text.chars().all(is_part) {
        return None;
    }
    let last = text.strip_suffix('.').unwrap_or(text).rsplit('.').next().unwrap_or_default();
    if last.starts_with(|c: char| c.is_ascii_digit()) {
        let is_number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
        if is_number || last.starts_with("0X") {
            return text.parse().ok().map(|address: Ipv4Addr| address.to_string());
        }
    }
    Some(text.to_ascii_lowercase())
}

/// The path without `.` and `..`, percent-encoded where browsers do it.
fn resolved(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let mut parts = path.strip_prefix(['/', '\\']).unwrap_or(path).split(['/', '\\']).peekable();
    while let Some(part) = parts.next() {
        let dots = part.to_ascii_lowercase().replace("%2e", ".");
        let is_last = parts.peek().is_none();
        match dots.as_str() {
            "." | ".." => {
                if dots == ".." {
                    segments.pop();
                }
                if is_last {
                    segments.push("");
                }
            }
            _ => segments.push(part),
        }
    }
    let path = segments.join("/");
    format!("/{}", utf8_percent_encode(&path, PATH))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use url::Url;

    use super::*;

    #[test]
    fn origin_and_path_are_those_of_a_browser() {
        for (text, origin, path) in [
            ("https://h", "https://h", "/"),
            ("https://H.Example:443/a/b?c#d", "https://h.example", "/a/b"),
            ("http://h:8080?x", "http://h:8080", "/"),
            ("https://u:p@h:/a b/é", "https://h", "/a%20b/%C3%A9"),
            ("https://h/a/../b/./c/%2E%2e", "https://h", "/b/"),
            ("https://h\\a\\b", "https://h", "/a/b"),
            ("http://[::1]:80/x", "http://[::1]", "/x"),
            ("http://127.0.0.1:0/", "http://127.0.0.1:0", "/"),
        ] {
            let url = HttpUrl::parse(text).unwrap();
            assert_eq!((url.origin.as_str(), url.path.as_str()), (origin, path), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_none() {
        for text in [
            "",
            "h",
            "ftp://h",
            "https:/h",
            "https://",
            "https://:80",
            "http://h:99999",
            "http://a b/",
            "https://h:x",
            "http://a%20b",
            "http://[::1",
            "http://1.2.3.4.5",
        ] {
            assert_eq!(HttpUrl::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_read_as_the_large_crate_reads_it(
            scheme in "https?://",
            host in "[a-zA-Z0-9.-]{0,9}|[a-z]{1,5}\\.example|[0-9]{1,3}(\\.[0-9]{1,3}){3}|\\[[0-9a-f:]{2,9}\\]",
            port in "(:[0-9]{0,5})?",
            rest in "([/\\\\?#][ -~é\t]{0,24})?",
        ) {
            let text = format!("{scheme}{host}{port}{rest}");
            let theirs = Url::parse(&text).map(|url| (url.origin().ascii_serialization(), url.path().to_owned()));
            // Unicode in hosts is only looked into there, be it encoded (`xn--`) or not.
            let same = |url: &HttpUrl| url.origin.is_ascii() && !url.origin.contains("xn--");
            if let Some(ours) = HttpUrl::parse(&text).filter(same) {
                prop_assert_eq!(theirs, Ok((ours.origin, ours.path)));
            }
        }

        #[test]
        fn ordinary_addresses_are_all_read(host in "[a-z]{1,5}(\\.[a-z]{1,5}){0,2}", port in "(:[0-9]{1,4})?", path in "(/[ -~]{0,9}){0,3}") {
            let text = format!("https://{host}{port}{path}");
            prop_assert!(HttpUrl::parse(&text).is_some(), "{}", text);
        }

        #[test]
        fn no_text_makes_it_panic(text in "(https?://)?\\PC*") {
            let _ = HttpUrl::parse(&text);
        }
    }
}
