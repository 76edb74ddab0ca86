//! Finished results, kept in IndexedDB by queue and job (`metaframe` 5.12). Denied storage keeps nothing.

use js_sys::{Function, Promise};
use wasm_bindgen::closure::Closure;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{IdbDatabase, IdbObjectStore, IdbOpenDbRequest, IdbRequest, IdbTransactionMode};

use super::window;

const DATABASE: &str = "jobs";
const STORE: &str = "results";
/// Longest result that is kept, in bytes of its JSON.
const MAX_BYTES: usize = 2_000_000;

/// The text kept under `key`.
pub async fn read(key: &str) -> Option<String> {
    let store = store(IdbTransactionMode::Readonly).await?;
    let value = done(&store.get(&key.into()).ok()?).await?;
    value.as_string()
}

/// Keeps a text, or with `None` nothing any more.
pub async fn write(key: &str, text: Option<&str>) {
    let Some(store) = store(IdbTransactionMode::Readwrite).await else { return };
    let request = match text.filter(|text| text.len() <= MAX_BYTES) {
        Some(text) => store.put_with_key(&text.into(), &key.into()),
        None => store.delete(&key.into()),
    };
    if let Ok(request) = request {
        done(&request).await;
    }
}

async fn store(mode: IdbTransactionMode) -> Option<IdbObjectStore> {
    // In a frame with denied storage even the look at the property may throw.
    let request: IdbOpenDbRequest = window().indexed_db().ok()??.open_with_u32(DATABASE, 1).ok()?;
    let opening = request.clone();
    let upgrade = Closure::once_into_js(move || {
        if let Ok(database) = opening.result() {
            let _ = database.unchecked_into::<IdbDatabase>().create_object_store(STORE);
        }
    });
    request.set_onupgradeneeded(Some(upgrade.unchecked_ref()));
    let database: IdbDatabase = done(&request).await?.dyn_into().ok()?;
    let transaction = database.transaction_with_str_and_mode(STORE, mode).ok()?;
    transaction.object_store(STORE).ok()
}

/// The request's result, when it is there.
async fn done(request: &IdbRequest) -> Option<JsValue> {
    let promise = Promise::new(&mut |resolve: Function, reject: Function| {
        request.set_onsuccess(Some(&resolve));
        request.set_onerror(Some(&reject));
    });
    JsFuture::from(promise).await.ok()?;
    request.result().ok()
}
