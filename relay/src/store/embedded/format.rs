//! The format of the file, and how data of earlier ones comes into it.
//!
//! 1: all entries in one table, an index of those that are live in another, documents by kind and name.
//! 2: entries by whether they are live, documents by name and kind.

use redb::{Database, ReadableTable as _, TableDefinition, WriteTransaction};

use super::{Bytes, DOCUMENTS, DUE, ENDED, LIVE, keys};

pub(super) const NOW: &str = "2";

pub(super) const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");

/// Makes the tables, checks the format, brings data of earlier ones into this one; the store's epoch. The inner error
/// is a format of a newer program.
pub(super) fn prepare(database: &Database) -> Result<Result<String, String>, redb::Error> {
    let transaction = database.begin_write()?;
    let epoch;
    {
        let mut meta = transaction.open_table(META)?;
        let found = meta.get("format")?.map(|value| value.value().to_owned());
        match found.as_deref() {
            None | Some(NOW) => {}
            Some("1") => from_1(&transaction)?,
            Some(newer) => return Ok(Err(newer.to_owned())),
        }
        if found.as_deref() != Some(NOW) {
            meta.insert("format", NOW)?;
        }
        let known = meta.get("epoch")?.map(|value| value.value().to_owned());
        epoch = match known {
            Some(known) => known,
            None => {
                let made = uuid::Uuid::new_v4().simple().to_string();
                meta.insert("epoch", made.as_str())?;
                made
            }
        };
        transaction.open_table(LIVE)?;
        transaction.open_table(ENDED)?;
        transaction.open_table(DUE)?;
        transaction.open_table(DOCUMENTS)?;
    }
    transaction.commit()?;
    Ok(Ok(epoch))
}

/// In the transaction that changes the format: so it is done once, or not at all.
fn from_1(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    const INDEX: TableDefinition<'_, Bytes, ()> = TableDefinition::new("live");
    const BY_KIND: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("documents");
    {
        let mut ended = transaction.open_table(ENDED)?;
        let mut live = transaction.open_table(LIVE)?;
        for item in transaction.open_table(INDEX)?.iter()? {
            let (key, _) = item?;
            if let Some(entry) = ended.remove(key.value())? {
                live.insert(key.value(), entry.value())?;
            }
        }
        let mut documents = transaction.open_table(DOCUMENTS)?;
        for item in transaction.open_table(BY_KIND)?.iter()? {
            let (key, bytes) = item?;
            // A key that is of no kind was written by nobody.
            if let Some(key) = keys::document_of_1(key.value()) {
                documents.insert(&*key, bytes.value())?;
            }
        }
    }
    transaction.delete_table(INDEX)?;
    transaction.delete_table(BY_KIND)?;
    Ok(())
}
