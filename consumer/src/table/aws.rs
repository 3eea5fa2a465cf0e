//! The table seam on DynamoDB, by the official SDK.
//!
//! Conditions become expressions with numbered placeholders, so no attribute name can clash with a reserved word.

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ReturnValuesOnConditionCheckFailure,
    ScalarAttributeType, TableStatus,
};
use bytes::Bytes;

use super::{Condition, Item, Table, TableError, TableName, Update, Value};

/// Tables in DynamoDB (or anything that speaks its protocol).
#[derive(Debug, Clone)]
pub struct DynamoTable {
    client: Client,
}

impl DynamoTable {
    /// Over an SDK client, whose retries and timeouts apply to every call.
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

fn to_aws(value: &Value) -> AttributeValue {
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

fn item_from_aws(item: HashMap<String, AttributeValue>) -> Item {
    item.into_iter().map(|(name, value)| (name, from_aws(value))).collect()
}

/// Expression text with its numbered names and values.
#[derive(Default)]
struct Expression {
    names: HashMap<String, String>,
    values: HashMap<String, AttributeValue>,
}

impl Expression {
    fn name(&mut self, attribute: &str) -> String {
        let placeholder = format!("#a{}", self.names.len());
        self.names.insert(placeholder.clone(), attribute.to_owned());
        placeholder
    }

    fn value(&mut self, value: AttributeValue) -> String {
        let placeholder = format!(":v{}", self.values.len());
        self.values.insert(placeholder.clone(), value);
        placeholder
    }

    fn compare(&mut self, attribute: &str, operator: &str, value: AttributeValue) -> String {
        format!("{} {operator} {}", self.name(attribute), self.value(value))
    }

    fn condition(&mut self, condition: &Condition) -> Option<String> {
        let text = match condition {
            Condition::None => return None,
            Condition::All(parts) => self.join(parts, " AND ")?,
            Condition::Any(parts) => self.join(parts, " OR ")?,
            Condition::Equals(name, value) => self.compare(name, "=", to_aws(value)),
            Condition::Below(name, bound) => self.compare(name, "<", AttributeValue::N(bound.to_string())),
            Condition::AtMost(name, bound) => self.compare(name, "<=", AttributeValue::N(bound.to_string())),
            Condition::Exists(name) => format!("attribute_exists({})", self.name(name)),
            Condition::Absent(name) => format!("attribute_not_exists({})", self.name(name)),
        };
        Some(text)
    }

    fn join(&mut self, parts: &[Condition], by: &str) -> Option<String> {
        let texts: Vec<String> = parts.iter().filter_map(|part| self.condition(part)).collect();
        // DynamoDB refuses redundant parentheses.
        match texts.len() {
            0 => None,
            1 => texts.into_iter().next(),
            _ => Some(format!("({})", texts.join(by))),
        }
    }

    fn update(&mut self, update: &Update) -> String {
        let mut text = String::new();
        let sets: Vec<String> = update.set.iter().map(|(n, v)| self.compare(n, "=", to_aws(v))).collect();
        if !sets.is_empty() {
            text.push_str(&format!("SET {} ", sets.join(", ")));
        }
        let removes: Vec<String> = update.remove.iter().map(|name| self.name(name)).collect();
        if !removes.is_empty() {
            text.push_str(&format!("REMOVE {}", removes.join(", ")));
        }
        text
    }

    fn names(&self) -> Option<HashMap<String, String>> {
        if self.names.is_empty() { None } else { Some(self.names.clone()) }
    }

    fn values(&self) -> Option<HashMap<String, AttributeValue>> {
        if self.values.is_empty() { None } else { Some(self.values.clone()) }
    }
}

/// Sorts an SDK error by what the engine may do about it.
fn classify<E, R>(error: &SdkError<E, R>, current: Option<HashMap<String, AttributeValue>>) -> TableError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    let text = || format!("{}", aws_sdk_dynamodb::error::DisplayErrorContext(error));
    let Some(service) = error.as_service_error() else {
        return TableError::Unavailable(text());
    };
    match service.code().unwrap_or_default() {
        "ConditionalCheckFailedException" => {
            TableError::Conflict { current: current.map(|item| Box::new(item_from_aws(item))) }
        }
        "ProvisionedThroughputExceededException" | "ThrottlingException" | "RequestLimitExceeded" => {
            TableError::Throttled
        }
        "InternalServerError" | "ServiceUnavailable" | "" => TableError::Unavailable(text()),
        _ => TableError::Invalid(text()),
    }
}

impl DynamoTable {
    /// A conflict must say what stands there; some servers leave it out of the answer, then it is read.
    async fn with_current(&self, table: &TableName, key: &str, error: TableError) -> TableError {
        match error {
            TableError::Conflict { current: None } => match self.get(table, key).await {
                Ok(current) => TableError::Conflict { current: current.map(Box::new) },
                Err(other) => other,
            },
            other => other,
        }
    }

    async fn is_active(&self, table: &TableName) -> Result<Option<bool>, TableError> {
        match self.client.describe_table().table_name(&table.name).send().await {
            Ok(out) => Ok(Some(out.table().and_then(|t| t.table_status()) == Some(&TableStatus::Active))),
            Err(e) if e.as_service_error().is_some_and(|s| s.is_resource_not_found_exception()) => Ok(None),
            Err(e) => Err(classify(&e, None)),
        }
    }

    async fn create(&self, table: &TableName) -> Result<(), TableError> {
        let key = KeySchemaElement::builder().attribute_name(table.key).key_type(KeyType::Hash).build();
        let attribute =
            AttributeDefinition::builder().attribute_name(table.key).attribute_type(ScalarAttributeType::S).build();
        let (Ok(key), Ok(attribute)) = (key, attribute) else {
            return Err(TableError::Invalid(format!("key schema of {table}")));
        };
        let sent = self
            .client
            .create_table()
            .table_name(&table.name)
            .key_schema(key)
            .attribute_definitions(attribute)
            .billing_mode(BillingMode::PayPerRequest)
            .send()
            .await;
        match sent {
            Ok(_) => Ok(()),
            Err(e) if e.as_service_error().is_some_and(|s| s.is_resource_in_use_exception()) => Ok(()),
            Err(e) => Err(classify(&e, None)),
        }
    }
}

#[async_trait::async_trait]
impl Table for DynamoTable {
    async fn ensure(&self, table: &TableName) -> Result<(), TableError> {
        for _ in 0..120 {
            match self.is_active(table).await? {
                Some(true) => return Ok(()),
                Some(false) => tokio::time::sleep(Duration::from_millis(500)).await,
                None => self.create(table).await?,
            }
        }
        Err(TableError::Unavailable(format!("table {table} did not become active in 60 s")))
    }

    async fn get(&self, table: &TableName, key: &str) -> Result<Option<Item>, TableError> {
        let request = self.client.get_item().table_name(&table.name).consistent_read(true);
        let out = request.key(table.key, AttributeValue::S(key.to_owned())).send().await;
        Ok(out.map_err(|e| classify(&e, None))?.item.map(item_from_aws))
    }

    async fn put(&self, table: &TableName, item: Item, condition: Condition) -> Result<(), TableError> {
        let key = item.string(table.key).unwrap_or_default().to_owned();
        let mut expression = Expression::default();
        let condition = expression.condition(&condition);
        let attributes = item.iter().map(|(name, value)| (name.to_owned(), to_aws(value))).collect();
        let sent = self
            .client
            .put_item()
            .table_name(&table.name)
            .set_item(Some(attributes))
            .set_condition_expression(condition)
            .set_expression_attribute_names(expression.names())
            .set_expression_attribute_values(expression.values())
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let Err(error) = sent else { return Ok(()) };
        let current = match error.as_service_error() {
            Some(aws_sdk_dynamodb::operation::put_item::PutItemError::ConditionalCheckFailedException(e)) => {
                e.item.clone()
            }
            _ => None,
        };
        Err(self.with_current(table, &key, classify(&error, current)).await)
    }

    async fn update(
        &self,
        table: &TableName,
        key: &str,
        update: Update,
        condition: Condition,
    ) -> Result<(), TableError> {
        let mut expression = Expression::default();
        let condition = expression.condition(&condition);
        let change = expression.update(&update);
        let sent = self
            .client
            .update_item()
            .table_name(&table.name)
            .key(table.key, AttributeValue::S(key.to_owned()))
            .update_expression(change)
            .set_condition_expression(condition)
            .set_expression_attribute_names(expression.names())
            .set_expression_attribute_values(expression.values())
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let Err(error) = sent else { return Ok(()) };
        let current = match error.as_service_error() {
            Some(aws_sdk_dynamodb::operation::update_item::UpdateItemError::ConditionalCheckFailedException(e)) => {
                e.item.clone()
            }
            _ => None,
        };
        Err(self.with_current(table, key, classify(&error, current)).await)
    }

    async fn delete(&self, table: &TableName, key: &str, condition: Condition) -> Result<(), TableError> {
        let mut expression = Expression::default();
        let condition = expression.condition(&condition);
        let sent = self
            .client
            .delete_item()
            .table_name(&table.name)
            .key(table.key, AttributeValue::S(key.to_owned()))
            .set_condition_expression(condition)
            .set_expression_attribute_names(expression.names())
            .set_expression_attribute_values(expression.values())
            .send()
            .await;
        match sent {
            Ok(_) => Ok(()),
            Err(e) => Err(self.with_current(table, key, classify(&e, None)).await),
        }
    }

    async fn scan(&self, table: &TableName) -> Result<Vec<Item>, TableError> {
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let request = self.client.scan().table_name(&table.name).consistent_read(true);
            let out = request.set_exclusive_start_key(start).send().await.map_err(|e| classify(&e, None))?;
            items.extend(out.items.unwrap_or_default().into_iter().map(item_from_aws));
            start = out.last_evaluated_key;
            if start.as_ref().is_none_or(HashMap::is_empty) {
                return Ok(items);
            }
        }
    }
}
