//! What is kept of an open callback, so that only this relay can read it.
//!
//! The store knows queues by their digests alone, and after a restart nobody may come who names the queue. So address,
//! payload and queue name are encrypted under a random key, in a file of its own (mode 0600) beside the relay's files,
//! not in the store: a copied store reveals no name. Relays that share their files share the key.
//!
//! The same contents give the same text, so that a repeated submission is known as such: the nonce is a keyed digest
//! of what is sealed, and differs for any two contents.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dockframe_shared::QueueDigest;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use serde::{Deserialize, Serialize};
use serde_json::Value;

const FILE: &str = "callbacks.key";
const KEY_BYTES: usize = 32;

/// What is sealed.
#[derive(PartialEq, Serialize, Deserialize)]
pub(super) struct Contents {
    pub(super) queue: String,
    pub(super) url: String,
    pub(super) payload: Value,
    /// Where the submitter reached the relay.
    pub(super) origin: String,
}

pub(super) struct Seal {
    key: LessSafeKey,
    nonces: hmac::Key,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(…)")
    }
}

impl Seal {
    /// Reads the key, or makes it.
    pub(super) fn open(folder: &Path) -> std::io::Result<Self> {
        let master = match read_key(&folder.join(FILE))? {
            Some(key) => key,
            None => make_key(folder)?,
        };
        let master = hmac::Key::new(hmac::HMAC_SHA256, &master);
        let derived = |purpose: &str| hmac::sign(&master, purpose.as_bytes());
        let key = UnboundKey::new(&CHACHA20_POLY1305, derived("contents of callbacks").as_ref())
            .map_err(|_| std::io::Error::other("the key for callbacks cannot be used"))?;
        let nonces = hmac::Key::new(hmac::HMAC_SHA256, derived("nonces of callbacks").as_ref());
        Ok(Self { key: LessSafeKey::new(key), nonces })
    }

    /// The contents as a text for this queue's records; `None` if they cannot be written, which no contents cause.
    pub(super) fn close(&self, queue: QueueDigest, contents: &Contents) -> Option<String> {
        let mut bytes = serde_json::to_vec(contents).ok()?;
        let digest = hmac::sign(&self.nonces, &bytes);
        let nonce: [u8; NONCE_LEN] = *digest.as_ref().first_chunk()?;
        let bound = Aad::from(queue.as_bytes());
        self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), bound, &mut bytes).ok()?;
        Some(URL_SAFE_NO_PAD.encode([nonce.as_slice(), &bytes].concat()))
    }

    /// Nothing if it was sealed under another key or for another queue.
    pub(super) fn open_sealed(&self, queue: QueueDigest, sealed: &str) -> Option<Contents> {
        let bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, rest) = bytes.split_first_chunk::<NONCE_LEN>()?;
        let mut rest = rest.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.key.open_in_place(nonce, Aad::from(queue.as_bytes()), &mut rest).ok()?;
        serde_json::from_slice(opened).ok()
    }
}

fn read_key(path: &Path) -> std::io::Result<Option<[u8; KEY_BYTES]>> {
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut key = [0; KEY_BYTES];
    file.read_exact(&mut key)?;
    Ok(Some(key))
}

/// Two relays may start at once on the same files: the key that is there first is everybody's.
fn make_key(folder: &Path) -> std::io::Result<[u8; KEY_BYTES]> {
    fs::create_dir_all(folder)?;
    let path = folder.join(FILE);
    let temporary = folder.join(format!("{FILE}.{}", uuid::Uuid::new_v4().simple()));
    let key: [u8; KEY_BYTES] = rand::random();
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&temporary)?;
    let linked =
        file.write_all(&key).and_then(|()| file.sync_all()).and_then(|()| fs::hard_link(&temporary, &path));
    fs::remove_file(&temporary)?;
    match linked {
        Ok(()) => fs::File::open(folder)?.sync_all()?,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    read_key(&path)?.ok_or_else(|| std::io::Error::other("the key for callbacks was taken away"))
}

#[cfg(test)]
mod tests {
    use dockframe_shared::QueueKey;
    use serde_json::json;

    use super::*;

    fn contents() -> Contents {
        Contents {
            queue: "a secret queue".to_owned(),
            url: "https://example.com".to_owned(),
            payload: json!([1]),
            origin: String::new(),
        }
    }

    fn digest(name: &str) -> QueueDigest {
        QueueKey::new(name).unwrap().digest()
    }

    #[test]
    fn what_is_sealed_is_opened_after_a_restart_and_only_for_its_queue() {
        let folder = tempfile::tempdir().unwrap();
        let sealed = Seal::open(folder.path()).unwrap().close(digest("q"), &contents()).unwrap();
        let again = Seal::open(folder.path()).unwrap();
        assert!(again.open_sealed(digest("q"), &sealed).is_some_and(|opened| opened == contents()));
        assert!(again.open_sealed(digest("other"), &sealed).is_none());
        assert_eq!(again.close(digest("q"), &contents()), Some(sealed.clone()), "the same for the same");
        let elsewhere = tempfile::tempdir().unwrap();
        assert!(Seal::open(elsewhere.path()).unwrap().open_sealed(digest("q"), &sealed).is_none());
        for broken in ["", "AAAA", &sealed[1..]] {
            assert!(again.open_sealed(digest("q"), broken).is_none());
        }
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_on_the_machine_reads_the_key_and_nothing_else_is_left() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        Seal::open(folder.path()).unwrap();
        let mode = fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
