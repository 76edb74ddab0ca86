//! Timers that end with their handle.

use wasm_bindgen::JsCast;
use wasm_bindgen::closure::Closure;
use wasm_bindgen_futures::JsFuture;

use super::window;

/// A timeout; dropping it stops it.
#[derive(Debug)]
pub struct Timeout {
    id: i32,
    _closure: Closure<dyn FnMut()>,
}

impl Timeout {
    #[must_use]
    pub fn new(millis: i64, action: impl FnOnce() + 'static) -> Option<Self> {
        let closure = Closure::once(action);
        let millis = i32::try_from(millis.max(0)).unwrap_or(i32::MAX);
        let id = window()
            .set_timeout_with_callback_and_timeout_and_arguments_0(closure.as_ref().unchecked_ref(), millis)
            .ok()?;
        Some(Self { id, _closure: closure })
    }
}

impl Drop for Timeout {
    fn drop(&mut self) {
        window().clear_timeout_with_handle(self.id);
    }
}

/// Waits.
pub async fn sleep(millis: i32) {
    let promise = js_sys::Promise::new(&mut |resolve, _| {
        let _ = window().set_timeout_with_callback_and_timeout_and_arguments_0(&resolve, millis);
    });
    let _ = JsFuture::from(promise).await;
}

/// Calls `action` each `millis`, for the life of the page.
pub fn every(millis: i32, action: impl Fn() + 'static) {
    let closure = Closure::<dyn Fn()>::new(action);
    let _ = window()
        .set_interval_with_callback_and_timeout_and_arguments_0(closure.as_ref().unchecked_ref(), millis);
    closure.forget();
}
