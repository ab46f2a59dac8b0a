//! Objects as watches decode them: one that cannot be decoded does not stop the others, and
//! `metadata.managedFields`, which nobody reads and which is half of many objects, is skipped.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::PartialObjectMeta;
use kube::core::object::HasStatus;
use serde::de::value::CowStrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, IntoDeserializer as _, MapAccess,
    Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::value::RawValue;

/// What is kept of an object: the rest is removed as soon as it is decoded, so that a list never holds
/// more than one object whole.
pub trait Trim<K>: Clone + fmt::Debug + Send + Sync + 'static {
    /// Removes from an object what is never read.
    fn trim(object: &mut K);
}

/// Objects are kept as they are.
#[derive(Clone, Debug)]
pub struct Whole;

impl<K> Trim<K> for Whole {
    fn trim(_: &mut K) {}
}

/// Objects are kept without their status.
#[derive(Clone, Debug)]
pub struct NoStatus;

impl<K: HasStatus> Trim<K> for NoStatus {
    fn trim(object: &mut K) {
        *object.status_mut() = None;
    }
}

/// An object as `T` trims it, or why it cannot be decoded. It is read from JSON text only, and in an
/// event of a watch behind the event's type, as the API server writes it.
#[derive(Clone, Debug)]
pub struct Decoded<K, T = Whole> {
    /// The object.
    pub object: Result<K, Undecodable>,
    trim: PhantomData<fn() -> T>,
}

impl<K: Clone, T: Trim<K>> From<Result<K, Undecodable>> for Decoded<K, T> {
    fn from(object: Result<K, Undecodable>) -> Self {
        // Lists grow by doubling while they are decoded, and keep their room when they are trimmed, between
        // what was decoded beside them and freed. A copy has the room that it needs: a pod of an agent takes
        // 11 instead of 34 KiB.
        let trimmed = object.map(|mut object| {
            T::trim(&mut object);
            object.clone()
        });
        Self { object: trimmed, trim: PhantomData }
    }
}

/// An object that cannot be decoded.
#[derive(Clone, Debug)]
pub struct Undecodable {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// Why not.
    pub error: String,
}

impl<'de, K: DeserializeOwned + Resource + Clone, T: Trim<K>> Deserialize<'de> for Decoded<K, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let failed = |error: serde_json::Error| {
            let PartialObjectMeta { metadata, .. } = decode::<PartialObjectMeta<K>>(raw.get())?;
            Ok(Undecodable { metadata, error: error.to_string() })
        };
        let decoded = match decode(raw.get()) {
            Ok(object) => Ok(object),
            Err(error) => Err(failed(error).map_err(|e: serde_json::Error| {
                serde::de::Error::custom(format!("an object without metadata: {e}"))
            })?),
        };
        Ok(decoded.into())
    }
}

/// Decodes an object without its `metadata.managedFields`.
fn decode<K: DeserializeOwned>(text: &str) -> Result<K, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    K::deserialize(Pruned { inner: &mut json, level: Level::Object })
}

/// Where in an object the deserializer is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Object,
    Metadata,
    Other,
}

/// A deserializer that skips what is not read.
struct Pruned<T> {
    inner: T,
    level: Level,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Pruned<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(Pruned { inner: visitor, level: self.level })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_option(Pruned { inner: visitor, level: self.level })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let visitor = Pruned { inner: visitor, level: self.level };
        self.inner.deserialize_newtype_struct(name, visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Pruned<V> {
    type Value = V::Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(formatter)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Pruned { inner, level: self.level })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(Pruned { inner, level: self.level })
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Entries { inner, level: self.level, value: Level::Other })
    }
}

/// The entries of an object or its metadata.
struct Entries<A> {
    inner: A,
    level: Level,
    /// What the value of the last key is.
    value: Level,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        while let Some(Key(key)) = self.inner.next_key()? {
            if self.level == Level::Metadata && key == "managedFields" {
                self.inner.next_value::<IgnoredAny>()?;
                continue;
            }
            let is_metadata = self.level == Level::Object && key == "metadata";
            self.value = if is_metadata { Level::Metadata } else { Level::Other };
            let key: CowStrDeserializer<'_, A::Error> = key.into_deserializer();
            return seed.deserialize(key).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        match self.value {
            Level::Other => self.inner.next_value_seed(seed),
            level => self.inner.next_value_seed(Pruned { inner: seed, level }),
        }
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Pruned<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Pruned { inner, level: self.level })
    }
}

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<K: Resource, T> Resource for Decoded<K, T> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        self.object.as_ref().map_or_else(|bad| &bad.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.object.as_mut().map_or_else(|bad| &mut bad.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Pod};
    use kube::core::{ObjectList, WatchEvent};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn managed() -> Value {
        json!([{ "manager": "m", "fieldsV1": { "f:metadata": { "managedFields": {} } } }])
    }

    #[test]
    fn an_object_is_decoded_without_its_managed_fields_and_with_everything_else() {
        let data = json!({ "managedFields": "x", "metadata": "y\n\"" });
        let text = json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": data, "metadata": {
            "name": "a", "annotations": { "managedFields": "kept" }, "managedFields": managed() } })
        .to_string();
        let Decoded { object, .. } = serde_json::from_str::<Decoded<ConfigMap>>(&text).unwrap();
        let object = object.unwrap();
        assert_eq!(object.metadata.managed_fields, None);
        assert_eq!(object.metadata.annotations.unwrap()["managedFields"], "kept");
        assert_eq!(json!(object.data), data);
    }

    #[test]
    fn an_object_has_no_room_that_it_does_not_need() {
        #[derive(Clone, Debug)]
        struct One;
        impl Trim<Pod> for One {
            fn trim(pod: &mut Pod) {
                pod.spec.iter_mut().for_each(|spec| spec.containers.truncate(1));
            }
        }
        let containers: Vec<_> = (0..9).map(|n| json!({ "name": format!("c-{n}") })).collect();
        let text = json!({ "metadata": {}, "spec": { "containers": containers } }).to_string();
        let Decoded { object, .. } = serde_json::from_str::<Decoded<Pod, One>>(&text).unwrap();
        let containers = object.unwrap().spec.unwrap().containers;
        assert_eq!((containers.len(), containers.capacity()), (1, 1));
    }

    #[test]
    fn a_list_and_a_watch_hold_what_cannot_be_decoded_beside_the_rest() {
        let good = json!({ "metadata": { "name": "a" }, "spec": { "containers": [] } });
        let bad = json!({ "metadata": { "name": "b", "uid": "u" }, "spec": 7 });
        let list = json!({ "kind": "PodList", "apiVersion": "v1",
            "metadata": { "resourceVersion": "7" }, "items": [good, bad] });
        let list: ObjectList<Decoded<Pod>> = serde_json::from_str(&list.to_string()).unwrap();
        let names: Vec<_> = list.items.iter().map(|object| object.meta().name.clone()).collect();
        assert_eq!(names, [Some("a".into()), Some("b".into())]);
        assert!(list.items[0].object.is_ok());
        let Err(undecodable) = &list.items[1].object else { panic!("a number is no spec") };
        assert!(undecodable.error.contains("invalid type: integer"), "{}", undecodable.error);
        let event = format!(r#"{{"type":"MODIFIED","object":{bad}}}"#);
        let event: WatchEvent<Decoded<Pod>> = serde_json::from_str(&event).unwrap();
        assert!(matches!(event, WatchEvent::Modified(Decoded { object: Err(_), .. })));
        assert!(serde_json::from_str::<Decoded<Pod>>("7").is_err(), "nothing names it");
    }

    proptest! {
        #[test]
        fn any_map_of_strings_comes_through(data in proptest::collection::btree_map(".{0,12}", ".{0,40}", 0..5)) {
            let text = json!({ "metadata": { "labels": data, "managedFields": managed() }, "data": data });
            let decoded = serde_json::from_str::<Decoded<ConfigMap>>(&text.to_string());
            let object = decoded.unwrap().object.unwrap();
            prop_assert_eq!(object.metadata.labels.unwrap(), data.clone());
            prop_assert_eq!(object.data.unwrap(), data);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}") {
            let _ = serde_json::from_str::<Decoded<Pod>>(&text);
        }
    }
}
