//! How AWS answered a call, as far as a check must tell answers apart.
//!
//! Invariant: an answer that only the service itself can have given (whatever it says of the arguments) counts as
//! permission; refusals by IAM, by KMS and of the credentials are told apart by their codes alone, never by their text.

use std::error::Error;

use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};

/// Why a call did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The identity may not do this; with what AWS says, which names identity, action and resource.
    Denied(String),
    /// The credentials themselves are refused: unknown, expired, or signed by a wrong clock.
    Credentials(String),
    /// There is no such stream, table or consumer.
    Missing(String),
    /// The service understood and refused: error code and text.
    Refused {
        /// Such as `InvalidArgumentException`.
        code: String,
        /// What it says.
        text: String,
    },
    /// There was no answer.
    Unreachable(String),
}

impl Trouble {
    /// Sorts an SDK error.
    pub(super) fn of<E, R>(error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        let Some(service) = error.as_service_error() else { return Self::Unreachable(chain(error)) };
        let text = service.message().unwrap_or("no message").to_owned();
        Self::coded(service.code().unwrap_or_default(), text)
    }

    fn coded(code: &str, text: String) -> Self {
        let code = code.rsplit('#').next().unwrap_or_default();
        match code {
            "AccessDeniedException" | "AccessDenied" | "KMSAccessDeniedException" => Self::Denied(text),
            "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "ExpiredTokenException"
            | "ExpiredToken"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "IncompleteSignature"
            | "IncompleteSignatureException"
            | "RequestExpired"
            | "NotAuthorized" => Self::Credentials(format!("{code}: {text}")),
            "ResourceNotFoundException" => Self::Missing(text),
            _ => Self::Refused { code: code.to_owned(), text },
        }
    }

    /// What it says, for people.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Denied(text) | Self::Credentials(text) | Self::Missing(text) | Self::Unreachable(text) => {
                text.clone()
            }
            Self::Refused { code, text } => format!("{code}: {text}"),
        }
    }

    /// What to do about it where no check knows better.
    pub(super) fn fix(&self) -> &'static str {
        match self {
            Self::Denied(_) => "allow it in the role's policy (deploy/cloudformation/roles.yaml has each role's calls)",
            Self::Credentials(_) => "renew the credentials, and look at the checks `identity` and `clock`",
            Self::Missing(_) => "make it with deploy/cloudformation/streams.yaml, or set its name",
            Self::Refused { .. } => "see what the service says; try again if it is throttling",
            Self::Unreachable(_) => {
                "look at aws.region and aws.endpoint_url_*, at name resolution, routes, security groups, VPC endpoints"
            }
        }
    }
}

pub(super) use crate::aws::said as chain;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_by_policy_by_key_and_of_the_credentials_are_told_apart() {
        let sorted = |code| Trouble::coded(code, "text".into());
        assert_eq!(sorted("AccessDeniedException"), Trouble::Denied("text".into()));
        assert_eq!(sorted("com.amazonaws.dynamodb#AccessDeniedException"), Trouble::Denied("text".into()));
        assert_eq!(sorted("KMSAccessDeniedException"), Trouble::Denied("text".into()));
        assert!(matches!(sorted("UnrecognizedClientException"), Trouble::Credentials(_)));
        assert!(matches!(sorted("ResourceNotFoundException"), Trouble::Missing(_)));
        assert!(matches!(sorted("InvalidArgumentException"), Trouble::Refused { .. }));
        assert!(matches!(sorted("ConditionalCheckFailedException"), Trouble::Refused { .. }));
    }
}
