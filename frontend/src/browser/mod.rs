//! The only plumbing to the browser besides `net` and `host`: address, clock, timers, storage, clipboard, downloads.
//!
//! Storage may be denied in an embedded page, the clipboard too; both then say so by their return values.

pub mod clipboard;
pub mod download;
pub mod editor;
pub mod kept;
pub mod location;
pub mod storage;
pub mod timer;

use dockframe_shared::Timestamp;
use wasm_bindgen::JsCast;

/// The window; the page runs nowhere else.
#[must_use]
pub fn window() -> web_sys::Window {
    web_sys::window().expect("the page runs in a window")
}

#[must_use]
pub fn now() -> Timestamp {
    #[expect(clippy::cast_possible_truncation, reason = "milliseconds since 1970")]
    let millis = js_sys::Date::now() as i64;
    Timestamp::from_millis(millis)
}

/// In 0..1.
#[must_use]
pub fn random() -> f64 {
    js_sys::Math::random()
}

/// 32 hex digits from the browser's source of secrets, in the form of a UUID.
#[must_use]
pub fn random_key() -> Option<String> {
    let crypto = js_sys::Reflect::get(&window(), &"crypto".into()).ok()?;
    let fill = js_sys::Reflect::get(&crypto, &"getRandomValues".into()).ok()?;
    let fill: js_sys::Function = fill.dyn_into().ok()?;
    let bytes = js_sys::Uint8Array::new_with_length(16);
    fill.call1(&crypto, &bytes).ok()?;
    let hex = dockframe_shared::ids::hex(&bytes.to_vec());
    Some([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

/// The origins of the pages around this one, the nearest first. Empty where the browser does not tell.
#[must_use]
pub fn pages_around() -> Vec<String> {
    let around = js_sys::Reflect::get(&window().location(), &"ancestorOrigins".into()).unwrap_or_default();
    if !around.is_object() {
        return Vec::new();
    }
    js_sys::Array::from(&around).iter().filter_map(|origin| origin.as_string()).collect()
}

/// Whether the page is in a frame of another one.
#[must_use]
pub fn is_embedded() -> bool {
    let window = window();
    match window.top() {
        Ok(Some(top)) => !js_sys::Object::is(&top, &window),
        // Not even that is told: somebody is around us.
        _ => true,
    }
}
