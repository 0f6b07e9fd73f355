//! Lists, maps and namespaces of a template. They know their depth and their size as a tree, so
//! that a value that holds itself many times over is refused in constant time, before anything
//! walks it; and they tell the meter what they hold.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{Enumerator, Object, ObjectRepr, Tuple, ValueKind};
use minijinja::{Error, Value};

use super::limits::{self, Charge, VALUE_DEPTH_MAX, refuse};

/// What a value weighs: bytes of it as a tree, nesting, and whether a namespace is in it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    pub bytes: usize,
    pub depth: u32,
    pub namespace: bool,
}

impl Size {
    /// Adds a child.
    fn hold(&mut self, child: Size) {
        self.bytes = self.bytes.saturating_add(child.bytes);
        self.depth = self.depth.max(child.depth.saturating_add(1));
        self.namespace |= child.namespace;
    }

    fn check(self) -> Result<Size, Error> {
        if self.depth > VALUE_DEPTH_MAX {
            return Err(refuse(format!("a value is nested more than {VALUE_DEPTH_MAX} deep")));
        }
        limits::check_size(self.bytes)?;
        Ok(self)
    }
}

/// What Python would call a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    List,
    Tuple,
    /// `dict.items()` and the like: has a length, is not JSON.
    View,
    /// What `map`, `select` and the like give: has no length, is not JSON.
    Generator,
}

/// A sequence.
#[derive(Debug)]
pub(super) struct List {
    pub items: Vec<Value>,
    pub shape: Shape,
    size: Size,
    _charge: Charge,
}

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        match self.shape {
            Shape::List | Shape::Tuple => ObjectRepr::Seq,
            Shape::View | Shape::Generator => ObjectRepr::Iterable,
        }
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.items.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.items.len())
    }
}

/// A sequence of those items.
pub(super) fn list(items: Vec<Value>, shape: Shape) -> Result<Value, Error> {
    let mut size = Size { bytes: 16, depth: 1, namespace: false };
    let mut bytes = items.capacity().saturating_mul(size_of::<Value>()).saturating_add(96);
    for item in &items {
        size.hold(measure(item)?);
        limits::keep(item);
        bytes = bytes.saturating_add(limits::inline_bytes(item));
    }
    limits::work(items.len())?;
    let size = size.check()?;
    Ok(Value::from_object(List { items, shape, size, _charge: Charge::new(bytes)? }))
}

/// A dictionary in the order of insertion.
#[derive(Debug)]
pub(super) struct Map {
    inner: Value,
    size: Size,
    _charge: Charge,
}

impl Object for Map {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.inner.as_object()?.get_value(key)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.inner.as_object()?.get_value_by_str(key)
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.inner.as_object().map_or(Enumerator::Empty, |object| object.enumerate())
    }
}

/// A dictionary of those pairs.
pub(super) fn map(pairs: Vec<(Value, Value)>) -> Result<Value, Error> {
    let mut size = Size { bytes: 16, depth: 1, namespace: false };
    let mut bytes = pairs.len().saturating_mul(96).saturating_add(192);
    for (key, value) in &pairs {
        if key.as_object().is_some() {
            return Err(refuse("a list or dictionary cannot be a key"));
        }
        for part in [key, value] {
            size.hold(measure(part)?);
            limits::keep(part);
            bytes = bytes.saturating_add(limits::inline_bytes(part));
        }
    }
    limits::work(pairs.len().saturating_mul(3))?;
    let (size, charge) = (size.check()?, Charge::new(bytes)?);
    Ok(Value::from_object(Map { inner: Value::from_pairs(pairs), size, _charge: charge }))
}

/// What `namespace()` gives: the only value that a template can change.
#[derive(Debug)]
pub(super) struct Namespace {
    values: Mutex<BTreeMap<Arc<str>, Value>>,
    charge: Charge,
}

impl Namespace {
    /// An empty one.
    pub fn new() -> Result<Namespace, Error> {
        Ok(Namespace { values: Mutex::default(), charge: Charge::new(128)? })
    }

    /// Sets an attribute. A namespace inside a namespace is refused: it could hold itself.
    pub fn set(&self, name: &str, value: Value) -> Result<(), Error> {
        if name.starts_with('_') {
            return Err(refuse(format!("a namespace has no attribute '{name}'")));
        }
        if measure(&value)?.check()?.namespace {
            return Err(refuse("a namespace cannot hold a namespace"));
        }
        limits::keep(&value);
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        if !values.contains_key(name) {
            self.charge.grow(name.len().saturating_add(96))?;
        }
        values.insert(name.into(), value);
        Ok(())
    }
}

impl Object for Namespace {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        Enumerator::Values(values.keys().map(|key| Value::from(Arc::clone(key))).collect())
    }
}

/// Weighs a value. Ours know their weight; others (constants, keyword arguments) are walked.
pub(super) fn measure(value: &Value) -> Result<Size, Error> {
    measure_at(value, 0)
}

fn measure_at(value: &Value, level: u32) -> Result<Size, Error> {
    if let Some(list) = value.downcast_object_ref::<List>() {
        return Ok(list.size);
    }
    if let Some(map) = value.downcast_object_ref::<Map>() {
        return Ok(map.size);
    }
    if value.downcast_object_ref::<Namespace>().is_some() {
        return Ok(Size { bytes: 16, depth: 1, namespace: true });
    }
    let Some(object) = value.as_object() else {
        let bytes = value.as_bytes().map_or(16, |bytes| bytes.len().saturating_add(16));
        return Ok(Size { bytes, depth: 0, namespace: false });
    };
    if object.type_name().contains("Loop") {
        return Err(refuse("a loop cannot be kept in a value"));
    }
    let mut size = Size { bytes: 16, depth: 1, namespace: false };
    if level > VALUE_DEPTH_MAX {
        return Err(refuse(format!("a value is nested more than {VALUE_DEPTH_MAX} deep")));
    }
    let level = level.saturating_add(1);
    match value.kind() {
        ValueKind::Map => {
            for (key, item) in object.try_iter_pairs().into_iter().flatten() {
                limits::work(2)?;
                size.hold(measure_at(&key, level)?);
                size.hold(measure_at(&item, level)?);
                size = size.check()?;
            }
        }
        ValueKind::Seq | ValueKind::Iterable => {
            for item in object.try_iter().into_iter().flatten() {
                limits::work(1)?;
                size.hold(measure_at(&item, level)?);
                size = size.check()?;
            }
        }
        _ => {}
    }
    size.check()
}

/// Counts the work of an operation that walks those values.
pub(super) fn weigh(values: &[Value]) -> Result<usize, Error> {
    let mut bytes = 0_usize;
    for value in values {
        bytes = bytes.saturating_add(measure(value)?.bytes);
    }
    limits::work_bytes(bytes)?;
    Ok(bytes)
}

/// The items of a sequence, keys of a map or characters of a string; asks for room as it goes.
pub(super) fn items(value: &Value) -> Result<Vec<Value>, Error> {
    if let Some(list) = value.downcast_object_ref::<List>() {
        limits::room(list.items.len().saturating_mul(size_of::<Value>()))?;
        return Ok(list.items.clone());
    }
    if value.is_none() {
        return Err(refuse("'NoneType' object is not iterable"));
    }
    if let Some(text) = value.as_str() {
        limits::room(text.chars().count().saturating_mul(size_of::<Value>()))?;
        return Ok(text.chars().map(Value::from).collect());
    }
    let mut items = Vec::new();
    for item in value.try_iter()? {
        if items.len() % 1024 == 0 {
            limits::room(items.len().saturating_add(1024).saturating_mul(48))?;
        }
        limits::work(1)?;
        items.push(item);
    }
    Ok(items)
}

/// A result of minijinja's made ours: sequences and maps are copied into `List` and `Map`.
pub(super) fn adopt(value: Value, shape: Shape) -> Result<Value, Error> {
    let Some(object) = value.as_object() else {
        limits::keep(&value);
        return Ok(value);
    };
    if value.downcast_object_ref::<List>().is_some()
        || value.downcast_object_ref::<Map>().is_some()
        || value.downcast_object_ref::<Namespace>().is_some()
    {
        return Ok(value);
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            let tuple = value.downcast_object_ref::<Tuple>().is_some();
            let mut items = items(&value)?;
            for item in items.iter_mut().filter(|item| item.as_object().is_some()) {
                *item = adopt_item(item.clone())?;
            }
            list(items, if tuple { Shape::Tuple } else { shape })
        }
        ValueKind::Map if !value.is_kwargs() => {
            map(object.try_iter_pairs().into_iter().flatten().collect())
        }
        _ => Ok(value),
    }
}

/// Tuples inside a result, such as those of `items()`.
fn adopt_item(item: Value) -> Result<Value, Error> {
    if item.downcast_object_ref::<Tuple>().is_some() {
        return list(items(&item)?, Shape::Tuple);
    }
    Ok(item)
}
