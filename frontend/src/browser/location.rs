//! The address: read, replaced without a reload, and followed.

use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;

use super::window;

/// The fragment with its `#`, or nothing.
#[must_use]
pub fn hash() -> String {
    window().location().hash().unwrap_or_default()
}

/// `https://host[:port]`.
#[must_use]
pub fn origin() -> String {
    window().location().origin().unwrap_or_default()
}

/// The whole address.
#[must_use]
pub fn href() -> String {
    window().location().href().unwrap_or_default()
}

/// The address without search and hash.
#[must_use]
pub fn base() -> String {
    let location = window().location();
    format!("{}{}", location.origin().unwrap_or_default(), location.pathname().unwrap_or_default())
}

/// The id of a short address: the last part of `…/j/<id>`.
#[must_use]
pub fn short_id() -> Option<String> {
    let path = window().location().pathname().ok()?;
    let (before, id) = path.trim_end_matches('/').rsplit_once('/')?;
    (before.ends_with("/j") && !id.is_empty()).then(|| id.to_owned())
}

/// Replaces the fragment and tells everybody: a replaced history entry fires no event by itself.
pub fn write_hash(hash: &str) {
    let location = window().location();
    let path = location.pathname().unwrap_or_default();
    let search = location.search().unwrap_or_default();
    let url = format!("{path}{search}#{}", hash.trim_start_matches('#'));
    let title = window().document().map(|document| document.title()).unwrap_or_default();
    if let Ok(history) = window().history() {
        // A browser may refuse after very many changes in a short time; the state then stays as it is.
        let _ = history.replace_state_with_url(&wasm_bindgen::JsValue::NULL, &title, Some(&url));
    }
    if let Ok(event) = js_hash_event() {
        let _ = window().dispatch_event(&event);
    }
}

fn js_hash_event() -> Result<web_sys::Event, wasm_bindgen::JsValue> {
    let constructor = js_sys::Reflect::get(&window(), &"HashChangeEvent".into())?;
    let constructor: js_sys::Function = constructor.dyn_into()?;
    let arguments = js_sys::Array::of1(&"hashchange".into());
    js_sys::Reflect::construct(&constructor, &arguments)?.dyn_into()
}

/// Opens another document here.
pub fn navigate(url: &str) {
    let _ = window().location().assign(url);
}

/// Calls `on_change` for every change of the fragment, for the life of the page.
pub fn follow_hash(on_change: impl Fn() + 'static) {
    let closure = Closure::<dyn Fn()>::new(on_change);
    let _ = window().add_event_listener_with_callback("hashchange", closure.as_ref().unchecked_ref());
    closure.forget();
}
