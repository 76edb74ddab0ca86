//! Copying. In a frame without `allow="clipboard-write"` it fails; the caller then offers the text for selection.

use wasm_bindgen_futures::JsFuture;

use super::window;

/// Whether the text is on the clipboard now.
pub async fn copy(text: &str) -> bool {
    let navigator = window().navigator();
    // Absent on pages that are not secure; the bindings would throw.
    let has = js_sys::Reflect::get(&navigator, &"clipboard".into()).is_ok_and(|value| value.is_object());
    has && JsFuture::from(navigator.clipboard().write_text(text)).await.is_ok()
}
