//! SDK errors, sorted by what the engine may do about them.

use std::collections::HashMap;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::AttributeValue;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::value::item_from_aws;
use crate::aws::{Outcome, chain};
use crate::table::TableError;

/// The errors of conditional writes, which carry the item that stands there.
pub(super) trait WriteError: ProvideErrorMetadata + std::error::Error + 'static {
    /// The item that a condition did not hold of, where the server sent it.
    fn standing(&self) -> Option<&HashMap<String, AttributeValue>>;
}

macro_rules! write_error {
    ($($error:ident),+) => {$(
        impl WriteError for $error {
            fn standing(&self) -> Option<&HashMap<String, AttributeValue>> {
                match self {
                    Self::ConditionalCheckFailedException(refused) => refused.item(),
                    _ => None,
                }
            }
        }
    )+};
}

write_error!(PutItemError, UpdateItemError, DeleteItemError);

/// Sorts an error that is not of a conditional write.
pub(super) fn classify<E>(error: &SdkError<E, HttpResponse>) -> TableError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let text = || chain(error);
    let Some(service) = error.as_service_error() else {
        return TableError::Unavailable(text());
    };
    let status = error.raw_response().map(|response| response.status().as_u16());
    match Outcome::of_error(service.code().unwrap_or_default(), status) {
        Outcome::Throttled => TableError::Throttled,
        Outcome::Unavailable | Outcome::Timeout => TableError::Unavailable(text()),
        Outcome::NotFound => TableError::NotFound(text()),
        _ => TableError::Invalid(text()),
    }
}

/// Sorts the error of a conditional write: a refusal says what stands there, if the server told.
pub(super) fn classify_write<E: WriteError>(error: &SdkError<E, HttpResponse>) -> TableError {
    let refused = error.as_service_error().filter(|e| e.code() == Some("ConditionalCheckFailedException"));
    match refused {
        Some(refused) => {
            TableError::Conflict { current: refused.standing().map(|item| Box::new(item_from_aws(item.clone()))) }
        }
        None => classify(error),
    }
}
