//! Files for the user: bytes that are here become a Blob, others are fetched by the browser.

use wasm_bindgen::JsCast;

use super::window;

/// An address of these bytes that lives as long as the page, or until it is given up by [`revoke`].
#[must_use]
pub fn object_url(bytes: &[u8], media_type: &str) -> Option<String> {
    let parts = js_sys::Array::of1(&js_sys::Uint8Array::from(bytes));
    let options = web_sys::BlobPropertyBag::new();
    options.set_type(media_type);
    let blob = web_sys::Blob::new_with_u8_array_sequence_and_options(&parts, &options).ok()?;
    web_sys::Url::create_object_url_with_blob(&blob).ok()
}

pub fn revoke(url: &str) {
    let _ = web_sys::Url::revoke_object_url(url);
}

/// Saves bytes under the last part of `name`.
pub fn save(name: &str, bytes: &[u8]) {
    if let Some(url) = object_url(bytes, "application/octet-stream") {
        click(&url, name);
        // The browser has taken the bytes by the next turn.
        if let Some(timeout) = super::timer::Timeout::new(10_000, move || revoke(&url)) {
            std::mem::forget(timeout);
        }
    }
}

/// Lets the browser fetch and save an address.
pub fn save_url(name: &str, url: &str) {
    click(url, name);
}

fn click(url: &str, name: &str) {
    let Some(document) = window().document() else { return };
    let Ok(element) = document.create_element("a") else { return };
    let anchor: web_sys::HtmlAnchorElement = element.unchecked_into();
    anchor.set_href(url);
    anchor.set_download(name.rsplit('/').next().unwrap_or(name));
    anchor.set_rel("noopener");
    anchor.set_target("_blank");
    anchor.click();
}
