//! Who holds a job: namespaces in their order, each once.
//!
//! Nearly every job has one holder, and a queue may have a hundred thousand jobs. A tree would keep room for eleven
//! in each of them, which is more than all the rest of a record; this keeps what is there, and the only one without a
//! place of its own. Written as a map.

use std::fmt;

use dockframe_shared::Namespace;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::record::Holder;

/// A map whose changes cost as much as there are entries: there are at most [`crate::limits::MAX_HOLDERS`].
#[derive(Debug, Clone, Default)]
pub(crate) enum Holders {
    #[default]
    Nobody,
    One((Namespace, Holder)),
    /// In their order. Those who are left when others have gone stay here.
    Several(Vec<(Namespace, Holder)>),
}

impl Holders {
    fn all(&self) -> &[(Namespace, Holder)] {
        match self {
            Self::Nobody => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => several,
        }
    }

    fn all_mut(&mut self) -> &mut [(Namespace, Holder)] {
        match self {
            Self::Nobody => &mut [],
            Self::One(one) => std::slice::from_mut(one),
            Self::Several(several) => several,
        }
    }

    fn into_all(self) -> Vec<(Namespace, Holder)> {
        match self {
            Self::Nobody => Vec::new(),
            Self::One(one) => vec![one],
            Self::Several(several) => several,
        }
    }

    fn place(&self, namespace: &Namespace) -> Result<usize, usize> {
        self.all().binary_search_by(|(held, _)| held.cmp(namespace))
    }

    pub(crate) fn get(&self, namespace: &Namespace) -> Option<&Holder> {
        self.place(namespace).ok().map(|at| &self.all()[at].1)
    }

    pub(crate) fn insert(&mut self, namespace: Namespace, holder: Holder) {
        match self.place(&namespace) {
            Ok(at) => self.all_mut()[at].1 = holder,
            Err(_) if self.is_empty() => *self = Self::One((namespace, holder)),
            Err(at) => {
                let mut several = std::mem::take(self).into_all();
                // Room for one more, not for several.
                several.reserve_exact(1);
                several.insert(at, (namespace, holder));
                *self = Self::Several(several);
            }
        }
    }

    pub(crate) fn remove(&mut self, namespace: &Namespace) -> Option<Holder> {
        let at = self.place(namespace).ok()?;
        let mut rest = std::mem::take(self).into_all();
        let (_, holder) = rest.remove(at);
        *self = Self::Several(rest);
        Some(holder)
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::Nobody;
    }

    pub(crate) fn len(&self) -> usize {
        self.all().len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Namespace, &Holder)> {
        self.all().iter().map(|(namespace, holder)| (namespace, holder))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&Namespace, &mut Holder)> {
        self.all_mut().iter_mut().map(|(namespace, holder)| (&*namespace, holder))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Namespace> {
        self.all().iter().map(|(namespace, _)| namespace)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Holder> {
        self.all().iter().map(|(_, holder)| holder)
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut Holder> {
        self.all_mut().iter_mut().map(|(_, holder)| holder)
    }

    pub(crate) fn into_keys(self) -> impl Iterator<Item = Namespace> {
        self.into_all().into_iter().map(|(namespace, _)| namespace)
    }
}

impl PartialEq for Holders {
    fn eq(&self, other: &Self) -> bool {
        self.all() == other.all()
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
    fn how_many_there_were_once_makes_no_difference() {
        let mut one = Holders::default();
        one.insert(namespace("a"), holder(1));
        let mut left = one.clone();
        left.insert(namespace("b"), holder(2));
        assert_ne!(left, one);
        left.remove(&namespace("b"));
        assert_eq!(left, one);
        left.remove(&namespace("a"));
        assert!(left.is_empty() && left == Holders::default());
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
