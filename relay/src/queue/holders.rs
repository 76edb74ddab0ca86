//! Who holds a job: namespaces in their order, each once.
//!
//! Nearly every job has one holder, and a queue may have a hundred thousand jobs. A tree would keep room for eleven
//! in each of them, which is more than all the rest of a record; this keeps what is there. Written as a map.

use std::fmt;

use dockframe_shared::Namespace;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::record::Holder;

/// A map whose changes cost as much as there are entries: there are at most [`crate::limits::MAX_HOLDERS`].
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Holders(Vec<(Namespace, Holder)>);

impl Holders {
    fn place(&self, namespace: &Namespace) -> Result<usize, usize> {
        self.0.binary_search_by(|(held, _)| held.cmp(namespace))
    }

    pub(crate) fn get(&self, namespace: &Namespace) -> Option<&Holder> {
        self.place(namespace).ok().map(|at| &self.0[at].1)
    }

    pub(crate) fn insert(&mut self, namespace: Namespace, holder: Holder) {
        match self.place(&namespace) {
            Ok(at) => self.0[at].1 = holder,
            Err(at) => {
                // Room for one more, not for several.
                self.0.reserve_exact(1);
                self.0.insert(at, (namespace, holder));
            }
        }
    }

    pub(crate) fn remove(&mut self, namespace: &Namespace) -> Option<Holder> {
        self.place(namespace).ok().map(|at| self.0.remove(at).1)
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Namespace, &Holder)> {
        self.0.iter().map(|(namespace, holder)| (namespace, holder))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&Namespace, &mut Holder)> {
        self.0.iter_mut().map(|(namespace, holder)| (&*namespace, holder))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Namespace> {
        self.0.iter().map(|(namespace, _)| namespace)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Holder> {
        self.0.iter().map(|(_, holder)| holder)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Holder> {
        self.0.iter_mut().map(|(_, holder)| holder)
    }

    pub(crate) fn into_keys(self) -> impl Iterator<Item = Namespace> {
        self.0.into_iter().map(|(namespace, _)| namespace)
    }
}

impl Serialize for Holders {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Holders {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Holders;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("namespaces with what each holds")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Holders, A::Error> {
                let mut holders = Holders::default();
                while let Some((namespace, holder)) = entries.next_entry()? {
                    holders.insert(namespace, holder);
                }
                Ok(holders)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::store::codec::{decode, encode};

    fn namespace(name: &str) -> Namespace {
        Namespace::new(name).unwrap()
    }

    fn holder(number: u64) -> Holder {
        Holder { number, ..Holder::default() }
    }

    #[test]
    fn a_namespace_is_held_once_and_in_its_place() {
        let mut holders = Holders::default();
        for (number, name) in [(1, "b"), (2, "a"), (3, "b"), (4, "c")] {
            holders.insert(namespace(name), holder(number));
        }
        let numbers: Vec<u64> = holders.values().map(|holder| holder.number).collect();
        assert_eq!(numbers, [2, 3, 4]);
        assert_eq!(holders.remove(&namespace("b")), Some(holder(3)));
        assert_eq!(holders.remove(&namespace("b")), None);
        assert!(holders.keys().eq([&namespace("a"), &namespace("c")]));
    }

    #[test]
    fn records_of_earlier_versions_are_read_and_written_as_they_were() {
        let before: BTreeMap<Namespace, Holder> =
            ["x", "_", "y"].map(|name| (namespace(name), holder(7))).into();
        let bytes = encode(&before).unwrap();
        let holders: Holders = decode(&bytes).unwrap();
        assert_eq!(holders.len(), 3);
        assert_eq!(encode(&holders).unwrap(), bytes);
    }
}
