//! The page's files, embedded in the program: which encoding, which headers (`relay-protocol` 2.2, 2.18).
//!
//! Any site may frame the page; everything else is as closed as a page allows that fetches what its jobs refer to.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

/// The built page.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    pub assets: &'static [Asset],
}

/// One file of it.
#[derive(Debug, Clone, Copy)]
pub struct Asset {
    /// Relative, without leading slash: `index.html`.
    pub path: &'static str,
    pub content_type: &'static str,
    /// Its name holds a digest of its content.
    pub immutable: bool,
    pub identity: &'static [u8],
    pub brotli: Option<&'static [u8]>,
    pub gzip: Option<&'static [u8]>,
}

const INDEX: &str = "index.html";

/// `frame-ancestors *`: hosts embed the page. `connect-src`, `img-src`: jobs refer to files anywhere.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; \
    style-src 'self'; img-src 'self' data: blob: http: https:; media-src 'self' data: blob: http: https:; \
    connect-src 'self' http: https: ws: wss:; font-src 'self'; worker-src 'self'; manifest-src 'self'; \
    base-uri 'self'; form-action 'none'; frame-ancestors *";

impl Page {
    fn find(&self, path: &str) -> Option<&Asset> {
        self.assets.iter().find(|asset| asset.path == path)
    }

    /// The file at this path, if there is one.
    pub(crate) fn file(&self, path: &str, request: &HeaderMap) -> Option<Response> {
        let path = if path.is_empty() { INDEX } else { path };
        let asset = self.find(path)?;
        let (encoding, content) = choose(asset, request);
        let mut response = Body::from(Bytes::from_static(content)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.content_type));
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        if let Some(encoding) = encoding {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        let caching = if asset.immutable { "public, max-age=31536000, immutable" } else { "no-cache" };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
        secure(headers);
        Some(response)
    }

    /// The start page, with its addresses made relative to the root, for `/j/{id}`.
    pub(crate) fn start_page(&self, rooted: bool) -> Option<Response> {
        let index = self.find(INDEX)?;
        let text = String::from_utf8_lossy(index.identity);
        let text = if rooted { root_base(&text) } else { text.into_owned() };
        let mut response = (StatusCode::OK, text).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=UTF-8"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        secure(headers);
        Some(response)
    }
}

fn secure(headers: &mut HeaderMap) {
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// `<base href="/">`: into the tag that is there, else first thing in the head.
fn root_base(html: &str) -> String {
    if let Some(at) = html.find("<base") {
        let tag_end = html[at..].find('>').map_or(html.len(), |end| at + end + 1);
        return format!("{}<base href=\"/\">{}", &html[..at], &html[tag_end..]);
    }
    match html.find("<head>") {
        Some(at) => {
            let after = at + "<head>".len();
            format!("{}<base href=\"/\">{}", &html[..after], &html[after..])
        }
        None => format!("<base href=\"/\">{html}"),
    }
}

/// The smallest form that the reader takes.
fn choose(asset: &Asset, request: &HeaderMap) -> (Option<&'static str>, &'static [u8]) {
    let accepted = request.get_all(header::ACCEPT_ENCODING);
    let takes = |wanted: &str| {
        accepted.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(
            |offer| {
                let (name, parameters) = offer.split_once(';').unwrap_or((offer, ""));
                let refused = parameters.trim().strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0));
                name.trim().eq_ignore_ascii_case(wanted) && !refused
            },
        )
    };
    match (asset.brotli, asset.gzip) {
        (Some(content), _) if takes("br") => (Some("br"), content),
        (_, Some(content)) if takes("gzip") => (Some("gzip"), content),
        _ => (None, asset.identity),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASSET: Asset = Asset {
        path: "a.js",
        content_type: "text/javascript",
        immutable: true,
        identity: b"identity",
        brotli: Some(b"brotli"),
        gzip: Some(b"gzip"),
    };

    fn chosen(accept: &'static str) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(accept));
        choose(&ASSET, &headers).0
    }

    #[test]
    fn the_smallest_accepted_encoding_is_chosen() {
        assert_eq!(chosen("gzip, deflate, br"), Some("br"));
        assert_eq!(chosen("gzip;q=0.5, br;q=0"), Some("gzip"));
        assert_eq!(chosen("identity"), None);
    }

    #[test]
    fn the_base_is_the_root_whatever_was_there() {
        let bare = "<html><head><title>x</title></head></html>";
        assert!(root_base(bare).contains("<head><base href=\"/\"><title>"));
        let based = "<head><base href=\"./\"><link></head>";
        assert_eq!(root_base(based), "<head><base href=\"/\"><link></head>");
    }
}
