//! Fetches, cross-origin where the queue is elsewhere. Errors are sentences for people; none names a queue.

use js_sys::{ArrayBuffer, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{Headers, Request, RequestInit, Response};

use crate::browser::{timer, window};

/// Tries of an upload, and the first pause between them; each pause doubles (`metaframe` 4.1).
const UPLOAD_TRIES: u32 = 9;
const UPLOAD_PAUSE_MS: i32 = 100;

async fn send(request: &Request) -> Result<Response, String> {
    let answer = JsFuture::from(window().fetch_with_request(request)).await;
    let response: Response = answer.map_err(|_| "the server cannot be reached".to_owned())?.unchecked_into();
    if response.ok() { Ok(response) } else { Err(format!("the server answered {}", response.status())) }
}

fn request(url: &str, init: &RequestInit) -> Result<Request, String> {
    Request::new_with_str_and_init(url, init).map_err(|_| "the address cannot be used".to_owned())
}

/// # Errors
/// No connection, or a status that is not 2xx.
pub async fn get_text(url: &str) -> Result<String, String> {
    let response = send(&request(url, &RequestInit::new())?).await?;
    let text = JsFuture::from(response.text().map_err(|_| broken())?).await.map_err(|_| broken())?;
    text.as_string().ok_or_else(broken)
}

/// # Errors
/// As [`get_text`].
pub async fn get_bytes(url: &str) -> Result<Vec<u8>, String> {
    let response = send(&request(url, &RequestInit::new())?).await?;
    let promise = response.array_buffer().map_err(|_| broken())?;
    let buffer: ArrayBuffer = JsFuture::from(promise).await.map_err(|_| broken())?.unchecked_into();
    Ok(Uint8Array::new(&buffer).to_vec())
}

fn broken() -> String {
    "the connection broke while the answer came".to_owned()
}

/// Puts bytes there, redirects followed, tried again for half a minute.
///
/// # Errors
/// Why the last try failed.
pub async fn put(url: &str, bytes: &[u8]) -> Result<(), String> {
    let body: JsValue = Uint8Array::from(bytes).into();
    let mut why = String::new();
    for n_try in 0..UPLOAD_TRIES {
        if n_try > 0 {
            timer::sleep(UPLOAD_PAUSE_MS << (n_try - 1)).await;
        }
        let init = RequestInit::new();
        init.set_method("PUT");
        init.set_body(&body);
        let headers = Headers::new().map_err(|_| "no headers".to_owned())?;
        let _ = headers.set("Content-Type", "application/octet-stream");
        init.set_headers(&headers);
        match send(&request(url, &init)?).await {
            Ok(_) => return Ok(()),
            Err(error) => why = error,
        }
    }
    Err(why)
}
