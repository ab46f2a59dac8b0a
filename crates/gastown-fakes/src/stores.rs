//! Stores of watched objects without a watch.

use kube::Resource;
use kube::runtime::reflector::Store;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::Event;

/// A store with these objects. It is closed, as the store of a watch is that has ended, and keeps them.
pub fn filled<K>(objects: impl IntoIterator<Item = K>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let mut writer = Writer::default();
    for object in objects {
        writer.apply_watcher_event(&Event::Apply(object));
    }
    writer.as_reader()
}
