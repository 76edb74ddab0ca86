//! Values of the host's pipes, freed of the browser's types on the way in and given them on the way out
//! (`metaframe` 1.9, 5.5). There is no limit of size in either direction.

use std::collections::BTreeMap;

use js_sys::{ArrayBuffer, Object, Reflect, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::Blob;

use dockframe_shared::metaframe::inputs::PipeValue;
use dockframe_shared::metaframe::outputs::OutputValue;
use serde_json::Value;

/// All own entries of a map of pipes; `None`: undefined, which deletes.
pub(super) async fn read_map(map: &JsValue) -> Vec<(String, Option<PipeValue>)> {
    let Some(object) = map.dyn_ref::<Object>() else { return Vec::new() };
    let mut entries = Vec::new();
    for entry in Object::entries(object).iter() {
        let entry: js_sys::Array = entry.unchecked_into();
        if let Some(name) = entry.get(0).as_string() {
            entries.push((name, read(&entry.get(1)).await));
        }
    }
    entries
}

/// As [`read_map`], without what is undefined.
pub(super) async fn read_all(map: &JsValue) -> BTreeMap<String, PipeValue> {
    // Inserted one by one: collecting would bring a sort of its own into the page.
    let mut values = BTreeMap::new();
    for (name, value) in read_map(map).await {
        if let Some(value) = value {
            values.insert(name, value);
        }
    }
    values
}

async fn read(value: &JsValue) -> Option<PipeValue> {
    if value.is_undefined() {
        return None;
    }
    if let Some(text) = value.as_string() {
        return Some(PipeValue::Json(Value::String(text)));
    }
    if let Some(number) = value.as_f64() {
        // NaN and the infinities have no JSON; their file is JavaScript's text for them.
        let json = serde_json::Number::from_f64(number).map(Value::Number);
        let text = || Value::String(dockframe_shared::javascript::number::to_text(number));
        return Some(PipeValue::Json(json.unwrap_or_else(text)));
    }
    if value.is_bigint() {
        return Some(PipeValue::Unusable("bigint"));
    }
    if let Some(bytes) = bytes(value).await {
        return Some(bytes);
    }
    let Ok(json) = js_sys::JSON::stringify(value) else {
        return Some(PipeValue::Unusable("value that cannot be written as JSON"));
    };
    let json = json.as_string().and_then(|text| serde_json::from_str(&text).ok());
    Some(json.map_or(PipeValue::Unusable("value that cannot be written as JSON"), PipeValue::Json))
}

/// The bytes of everything binary; `None` for everything else.
async fn bytes(value: &JsValue) -> Option<PipeValue> {
    if let Some(buffer) = value.dyn_ref::<ArrayBuffer>() {
        return Some(PipeValue::Bytes(Uint8Array::new(buffer).to_vec()));
    }
    if ArrayBuffer::is_view(value) {
        let get = |name: &str| Reflect::get(value, &name.into());
        let buffer: ArrayBuffer = get("buffer").ok()?.dyn_into().ok()?;
        // Hosts write the whole buffer of the arrays that they know, and so must we; the others are our own matter.
        let is_whole = !value.is_instance_of::<js_sys::DataView>()
            && !value.is_instance_of::<js_sys::BigInt64Array>()
            && !value.is_instance_of::<js_sys::BigUint64Array>();
        let all = Uint8Array::new(&buffer);
        if is_whole {
            return Some(PipeValue::Bytes(all.to_vec()));
        }
        let number = |name: &str| get(name).ok().and_then(|number| number.as_f64()).unwrap_or_default();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "within a buffer's length"
        )]
        let (start, length) = (number("byteOffset") as u32, number("byteLength") as u32);
        return Some(PipeValue::Bytes(all.subarray(start, start + length).to_vec()));
    }
    let blob = value.dyn_ref::<Blob>()?;
    match JsFuture::from(blob.array_buffer()).await {
        Ok(buffer) => Some(PipeValue::Bytes(Uint8Array::new(&buffer).to_vec())),
        Err(_) => Some(PipeValue::Unusable("file that cannot be read")),
    }
}

/// The map of an `OutputsUpdate`.
pub(super) fn write_map(outputs: &[(String, OutputValue)]) -> Object {
    let map = Object::new();
    for (name, value) in outputs {
        // Setting an own property of a plain object cannot fail.
        let _ = Reflect::set(&map, &name.into(), &write(value));
    }
    map
}

fn write(value: &OutputValue) -> JsValue {
    match value {
        OutputValue::Plain(value) => parse(value),
        OutputValue::Object(entries) => {
            let object = Object::new();
            for (name, value) in entries {
                let value = value.as_ref().map_or(JsValue::UNDEFINED, parse);
                let _ = Reflect::set(&object, &(*name).into(), &value);
            }
            object.into()
        }
    }
}

fn parse(value: &Value) -> JsValue {
    let json = dockframe_shared::javascript::json::stringify(value);
    js_sys::JSON::parse(&json).unwrap_or(JsValue::UNDEFINED)
}
