//! The input `job`, by which a host may set the page's job (`metaframe` 5.7).

use serde_json::{Map, Value};

use super::data_ref::{Content, DataRef};
use super::hash_params::BadValue;
use super::inputs::PipeValue;
use crate::javascript::json::is_truthy;

/// The input that may set the job, and is never a file.
pub const JOB_INPUT: &str = "job";

/// The job that an input `job` sets, to be written to the parameter of that name: an object, or JSON text, or a
/// reference that holds one.
///
/// # Errors
/// A value that is no job, in words for the user.
pub fn job_from_input(value: &PipeValue) -> Result<Option<Map<String, Value>>, BadValue> {
    let wrong = || BadValue::Shape("the input `job` must be an object such as {\"image\": …}".to_owned());
    let parse = |text: &str| serde_json::from_str(text).map_err(|error| BadValue::Json(error.to_string()));
    let value = match value {
        PipeValue::Json(value) if !is_truthy(value) => return Ok(None),
        PipeValue::Json(Value::Object(object)) => match DataRef::from_object(object) {
            None => return Ok(Some(object.clone())),
            Some(reference) => parse(&inline_text(&reference).ok_or_else(wrong)?)?,
        },
        PipeValue::Json(Value::String(text)) => match DataRef::from_data_url(text)? {
            None => parse(text)?,
            Some(reference) => parse(&inline_text(&reference).ok_or_else(wrong)?)?,
        },
        PipeValue::Bytes(bytes) => parse(&String::from_utf8_lossy(bytes))?,
        PipeValue::Json(_) | PipeValue::Unusable(_) => return Err(wrong()),
    };
    match value {
        Value::Object(object) => Ok(Some(object)),
        _ => Err(wrong()),
    }
}

fn inline_text(reference: &DataRef) -> Option<String> {
    match reference.content() {
        Ok(Content::Bytes(bytes)) => String::from_utf8(bytes.into_owned()).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_input_job_may_be_an_object_a_text_or_a_reference() {
        let job = json!({"image": "a"});
        for value in [
            job.clone(),
            json!("{\"image\":\"a\"}"),
            json!("data:application/json,%7B%22image%22:%22a%22%7D"),
            json!("data:;base64,eyJpbWFnZSI6ImEifQ=="),
            json!({"type": "json", "value": {"image": "a"}}),
            json!({"type": "utf8", "value": "{\"image\":\"a\"}"}),
        ] {
            let read = job_from_input(&PipeValue::Json(value.clone())).unwrap();
            assert_eq!(read.map(Value::Object), Some(job.clone()), "{value}");
        }
        assert_eq!(job_from_input(&PipeValue::Json(json!(""))), Ok(None));
        for value in [json!("nonsense"), json!([1]), json!(7), json!({"type": "url", "value": "https://h"})] {
            assert!(job_from_input(&PipeValue::Json(value.clone())).is_err(), "{value}");
        }
    }
}
