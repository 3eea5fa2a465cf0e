//! How a call to AWS ended: a closed set, and which error codes mean what.

/// How a call to AWS ended, for the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It did what was asked.
    Ok,
    /// A condition did not hold, or the resource is in use.
    Conflict,
    /// Refused for capacity or rate: nothing was done.
    Throttled,
    /// No connection, or an answer of 5xx: it may or may not have been done.
    Unavailable,
    /// An iterator or a page token was too old.
    Expired,
    /// There is no such stream, shard or table.
    NotFound,
    /// The request is wrong or forbidden and will stay so.
    Invalid,
    /// No answer in time: it may or may not have been done.
    Timeout,
}

impl Outcome {
    /// The metric label's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Conflict => "conflict",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Expired => "expired",
            Self::NotFound => "not_found",
            Self::Invalid => "invalid",
            Self::Timeout => "timeout",
        }
    }

    /// What an error code of Kinesis or DynamoDB means. An error without a code is one of a server in between, and an
    /// unknown one is judged by its HTTP status.
    pub fn of_error(code: &str, status: Option<u16>) -> Self {
        match code {
            "ConditionalCheckFailedException" | "ResourceInUseException" => Self::Conflict,
            "ProvisionedThroughputExceededException"
            | "LimitExceededException"
            | "KMSThrottlingException"
            | "RequestLimitExceeded"
            | "Throttling"
            | "ThrottlingException"
            | "ThrottledException"
            | "TooManyRequestsException"
            | "SlowDown" => Self::Throttled,
            "ExpiredIteratorException" | "ExpiredNextTokenException" => Self::Expired,
            "ResourceNotFoundException" => Self::NotFound,
            "RequestTimeout" | "RequestTimeoutException" => Self::Timeout,
            "" | "InternalError" | "InternalFailure" | "InternalFailureException" | "InternalServerError" => {
                Self::Unavailable
            }
            "ServiceUnavailable" | "ServiceUnavailableException" => Self::Unavailable,
            _ if status.is_some_and(|status| status >= 500) => Self::Unavailable,
            _ => Self::Invalid,
        }
    }
}
