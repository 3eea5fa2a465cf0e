//! Values and items to and from the SDK's types.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;

use crate::table::{Item, Value};

pub(super) fn to_aws(value: &Value) -> AttributeValue {
    match value {
        Value::S(s) => AttributeValue::S(s.clone()),
        Value::N(n) => AttributeValue::N(n.clone()),
        Value::B(b) => AttributeValue::B(Blob::new(b.to_vec())),
        Value::Ss(set) => AttributeValue::Ss(set.iter().cloned().collect()),
        Value::Other => AttributeValue::Null(true),
    }
}

fn from_aws(value: AttributeValue) -> Value {
    match value {
        AttributeValue::S(s) => Value::S(s),
        AttributeValue::N(n) => Value::N(n),
        AttributeValue::B(b) => Value::B(Bytes::from(b.into_inner())),
        AttributeValue::Ss(set) => Value::Ss(set.into_iter().collect()),
        _ => Value::Other,
    }
}

pub(super) fn item_from_aws(item: HashMap<String, AttributeValue>) -> Item {
    item.into_iter().map(|(name, value)| (name, from_aws(value))).collect()
}
