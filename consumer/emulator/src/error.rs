//! Errors as the Kinesis JSON protocol carries them: an HTTP status, an exception name and a message.
//!
//! Every refusal of an operation is one [`ApiError`]; nothing in the request path panics. Errors of starting the
//! emulator or of its files are their own types next to the code that raises them.

use std::borrow::Cow;

/// A refused operation, ready to be written as a response.
///
/// `code` is the exception name without a name space, as the SDKs expect it in `__type`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) code: Cow<'static, str>,
    pub(crate) message: String,
}

/// Makes one constructor per exception, so that status and name are written once.
macro_rules! exceptions {
    ($($name:ident, $status:literal, $code:literal;)*) => {
        impl ApiError {
            $(pub(crate) fn $name(message: impl Into<String>) -> Self {
                Self { status: $status, code: Cow::Borrowed($code), message: message.into() }
            })*
        }
    };
}

exceptions! {
    invalid_argument, 400, "InvalidArgumentException";
    validation, 400, "ValidationException";
    serialization, 400, "SerializationException";
    unknown_operation, 400, "UnknownOperationException";
    not_found, 400, "ResourceNotFoundException";
    in_use, 400, "ResourceInUseException";
    limit_exceeded, 400, "LimitExceededException";
    throughput_exceeded, 400, "ProvisionedThroughputExceededException";
    expired_iterator, 400, "ExpiredIteratorException";
    expired_token, 400, "ExpiredNextTokenException";
    internal, 500, "InternalFailure";
}

impl ApiError {
    /// An error named by a fault rule.
    pub(crate) fn injected(status: u16, code: impl Into<Cow<'static, str>>) -> Self {
        let code = code.into();
        Self { status, message: format!("injected fault {code}"), code }
    }
}
