//! A part of a record that nearly no record has.
//!
//! A queue may have a hundred thousand jobs, and each has room for all that a job may have. What most of them lack
//! costs them one pointer here. Read and written as what it holds.

use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What is there when nothing is said.
pub(crate) trait Usual: Default + PartialEq + 'static {
    const USUAL: &'static Self;
}

impl<T: PartialEq + 'static> Usual for Vec<T> {
    const USUAL: &'static Self = &Self::new();
}

impl<T: PartialEq + 'static> Usual for Option<T> {
    const USUAL: &'static Self = &None;
}

/// A `T` that has a place of its own only where it is not the usual one, or was changed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rare<T>(Option<Box<T>>);

impl<T: Usual> From<T> for Rare<T> {
    fn from(value: T) -> Self {
        Self((value != *T::USUAL).then(|| Box::new(value)))
    }
}

impl<T: Usual> Deref for Rare<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::USUAL)
    }
}

impl<T: Usual> DerefMut for Rare<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

impl<T: Usual> PartialEq for Rare<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Usual + Serialize> Serialize for Rare<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de, T: Usual + Deserialize<'de>> Deserialize<'de> for Rare<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::codec::{decode, encode};

    #[test]
    fn the_usual_has_no_place_of_its_own_and_equals_one_that_has() {
        let mut rare: Rare<Vec<u8>> = Vec::new().into();
        assert!(rare.0.is_none() && rare.is_empty());
        rare.push(1);
        assert_eq!(*rare, [1]);
        rare.clear();
        assert!(rare == Rare::default());
    }

    #[test]
    fn it_is_read_and_written_as_what_it_holds() {
        for value in [vec![], vec![1, 2]] {
            let bytes = encode(&value).unwrap();
            let rare: Rare<Vec<u8>> = decode(&bytes).unwrap();
            assert_eq!(rare.0.is_some(), !value.is_empty());
            assert_eq!(encode(&rare).unwrap(), bytes);
        }
    }
}
