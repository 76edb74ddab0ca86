//! Entries as bytes: a version number, then MessagePack with field names.
//!
//! Self-describing, so that a field can be added with a default and old data is read for ever; the version changes
//! only when that does not suffice.

use dockframe_shared::JobId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreError;
use crate::queue::view::{Entry, Key};

const VERSION: u8 = 1;

pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    let mut bytes = vec![VERSION];
    value
        .serialize(&mut rmp_serde::Serializer::new(&mut bytes).with_struct_map())
        .map_err(|error| StoreError::Corrupt(format!("an entry cannot be written: {error}")))?;
    Ok(bytes)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => rmp_serde::from_slice(rest)
            .map_err(|error| StoreError::Corrupt(format!("an entry cannot be read: {error}"))),
        Some((version, _)) => Err(StoreError::Corrupt(format!(
            "an entry has the format {version}, and this program reads up to {VERSION}: use a newer one"
        ))),
        None => Err(StoreError::Corrupt("an entry is empty".to_owned())),
    }
}

pub(crate) fn encode_entry(entry: &Entry) -> Result<Vec<u8>, StoreError> {
    match entry {
        Entry::Record(record) => encode(&**record),
        Entry::Slot(slot) => encode(slot),
        Entry::Worker(worker) => encode(worker),
        Entry::Run(job) => encode(job),
    }
}

pub(crate) fn decode_entry(key: &Key, bytes: &[u8]) -> Result<Entry, StoreError> {
    Ok(match key {
        Key::Record(_) => Entry::Record(Box::new(decode(bytes)?)),
        Key::Slot(_) => Entry::Slot(decode(bytes)?),
        Key::Worker(_) => Entry::Worker(decode(bytes)?),
        Key::Run(_) => Entry::Run(decode::<JobId>(bytes)?),
    })
}
