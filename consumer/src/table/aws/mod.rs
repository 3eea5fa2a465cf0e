//! The table seam on DynamoDB, by the official SDK.
//!
//! Conditions become expressions with numbered placeholders, so no attribute name can clash with a reserved word
//! (`expression`). Every call asks for the capacity it used and counts it; a refused write is not told, so it is
//! counted by the documented rule (`metered`). Not here: retries of the SDK (the client's), counting of calls
//! ([`CountCalls`](crate::aws::CountCalls)).

mod error;
mod expression;
mod value;

use std::collections::HashMap;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, ConsumedCapacity, KeySchemaElement, KeyType,
    ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure, ScalarAttributeType, TableStatus,
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use self::error::{WriteError, classify, classify_write};
use self::expression::Expression;
use self::value::{item_from_aws, to_aws};
use super::metered::write_units;
use super::{Condition, Item, Table, TableError, TableName, Update};
use crate::metrics::EngineMetrics;

/// Tables in DynamoDB (or anything that speaks its protocol).
#[derive(Debug, Clone)]
pub struct DynamoTable {
    client: Client,
    metrics: Option<EngineMetrics>,
}

/// Asked for with every call.
const TOTAL: ReturnConsumedCapacity = ReturnConsumedCapacity::Total;
const ALL_OLD: ReturnValuesOnConditionCheckFailure = ReturnValuesOnConditionCheckFailure::AllOld;

impl DynamoTable {
    /// Over an SDK client, whose retries and timeouts apply to every call.
    pub fn new(client: Client) -> Self {
        Self { client, metrics: None }
    }

    /// Counts the capacity it uses.
    #[must_use]
    pub fn with_metrics(mut self, metrics: EngineMetrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    fn count_read(&self, table: &TableName, used: Option<&ConsumedCapacity>) {
        if let (Some(metrics), Some(units)) = (&self.metrics, used.and_then(ConsumedCapacity::capacity_units)) {
            metrics.read_units(&table.name, units);
        }
    }

    fn count_write(&self, table: &TableName, used: Option<&ConsumedCapacity>) {
        if let (Some(metrics), Some(units)) = (&self.metrics, used.and_then(ConsumedCapacity::capacity_units)) {
            metrics.write_units(&table.name, units);
        }
    }

    /// The end of a conditional write. A conflict must say what stands there; some servers leave it out of the answer,
    /// then it is read.
    async fn written<E: WriteError>(
        &self,
        table: &TableName,
        key: &str,
        sent: Result<Option<ConsumedCapacity>, SdkError<E, HttpResponse>>,
    ) -> Result<(), TableError> {
        let error = match sent {
            Ok(used) => {
                self.count_write(table, used.as_ref());
                return Ok(());
            }
            Err(error) => classify_write(&error),
        };
        let TableError::Conflict { current } = error else { return Err(error) };
        let current = match current {
            Some(item) => Some(item),
            None => self.get(table, key).await?.map(Box::new),
        };
        if let Some(metrics) = &self.metrics {
            let bytes = current.as_deref().map_or(0, Item::size);
            metrics.write_units(&table.name, write_units(bytes) as f64);
        }
        Err(TableError::Conflict { current })
    }

    async fn is_active(&self, table: &TableName) -> Result<Option<bool>, TableError> {
        match self.client.describe_table().table_name(&table.name).send().await {
            Ok(out) => Ok(Some(out.table().and_then(|t| t.table_status()) == Some(&TableStatus::Active))),
            Err(e) if e.as_service_error().is_some_and(|s| s.is_resource_not_found_exception()) => Ok(None),
            Err(e) => Err(classify(&e)),
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
            Err(e) => Err(classify(&e)),
        }
    }
}

fn key_of(key: &str) -> AttributeValue {
    AttributeValue::S(key.to_owned())
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
        let request = request.return_consumed_capacity(TOTAL).key(table.key, key_of(key));
        let out = request.send().await.map_err(|e| classify(&e))?;
        self.count_read(table, out.consumed_capacity());
        Ok(out.item.map(item_from_aws))
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
            .return_values_on_condition_check_failure(ALL_OLD)
            .return_consumed_capacity(TOTAL)
            .send()
            .await;
        self.written(table, &key, sent.map(|out| out.consumed_capacity)).await
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
            .key(table.key, key_of(key))
            .update_expression(change)
            .set_condition_expression(condition)
            .set_expression_attribute_names(expression.names())
            .set_expression_attribute_values(expression.values())
            .return_values_on_condition_check_failure(ALL_OLD)
            .return_consumed_capacity(TOTAL)
            .send()
            .await;
        self.written(table, key, sent.map(|out| out.consumed_capacity)).await
    }

    async fn delete(&self, table: &TableName, key: &str, condition: Condition) -> Result<(), TableError> {
        let mut expression = Expression::default();
        let condition = expression.condition(&condition);
        let sent = self
            .client
            .delete_item()
            .table_name(&table.name)
            .key(table.key, key_of(key))
            .set_condition_expression(condition)
            .set_expression_attribute_names(expression.names())
            .set_expression_attribute_values(expression.values())
            .return_values_on_condition_check_failure(ALL_OLD)
            .return_consumed_capacity(TOTAL)
            .send()
            .await;
        self.written(table, key, sent.map(|out| out.consumed_capacity)).await
    }

    async fn scan(&self, table: &TableName) -> Result<Vec<Item>, TableError> {
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let request = self.client.scan().table_name(&table.name).consistent_read(true);
            let request = request.return_consumed_capacity(TOTAL).set_exclusive_start_key(start);
            let out = request.send().await.map_err(|e| classify(&e))?;
            self.count_read(table, out.consumed_capacity());
            items.extend(out.items.unwrap_or_default().into_iter().map(item_from_aws));
            start = out.last_evaluated_key;
            if start.as_ref().is_none_or(HashMap::is_empty) {
                return Ok(items);
            }
        }
    }
}
