//! What is examined: a configuration, the clients it leads to, and whose credentials they carry.
//!
//! The credentials are looked for once, by whichever check asks first; without them no call to AWS is made, so that a
//! missing key is one fault and not thirty. Not here: any verdict.

use aws_config::SdkConfig;
use aws_credential_types::credential_feature::AwsCredentialFeature;
use aws_sdk_kinesis::config::ProvideCredentials;
use tokio::sync::OnceCell;

use super::answer::chain;
use super::{Finding, Part};
use crate::aws::{self, Clients};
use crate::config::Config;

/// Where the credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    /// The provider that won, in words.
    pub(super) provider: String,
    /// The public part of the key.
    pub(super) key_id: String,
    /// Account, if the provider knows it.
    pub(super) account: Option<String>,
}

/// What is examined.
#[derive(Debug)]
pub struct Patient {
    /// The checked configuration.
    pub(super) config: Config,
    /// What its process will do.
    pub(super) part: Part,
    /// Ready clients.
    pub(super) clients: Clients,
    /// The services are inside a flowshift: no identity, no region.
    pub(super) embedded: bool,
    /// It is certain that no worker lives: the data folder is in nobody's use.
    pub(super) stopped: bool,
    /// What the clients were made of; none for embedded services.
    pub(super) shared: Option<SdkConfig>,
    credentials: OnceCell<Result<Credentials, String>>,
}

impl Patient {
    /// A job on AWS, or at the endpoints that its settings name.
    pub async fn on_aws(config: Config, part: Part) -> Self {
        let shared = aws::load(&config.aws).await;
        let clients = Clients::of(&shared, &shared, &config.aws);
        Self {
            config,
            part,
            clients,
            embedded: false,
            stopped: false,
            shared: Some(shared),
            credentials: OnceCell::new(),
        }
    }

    /// A job on the services inside a flowshift; `stopped`: of a data folder that nobody runs.
    pub fn embedded(config: Config, part: Part, clients: Clients, stopped: bool) -> Self {
        Self { config, part, clients, embedded: true, stopped, shared: None, credentials: OnceCell::new() }
    }

    /// The region in force; none when there is none, or the services are embedded.
    pub(super) fn region(&self) -> Option<&str> {
        self.shared.as_ref()?.region().map(AsRef::as_ref)
    }

    /// The credentials, or why there are none.
    pub(super) async fn credentials(&self) -> Result<&Credentials, String> {
        let found = self.credentials.get_or_init(|| async {
            let Some(shared) = &self.shared else {
                return Ok(Credentials { provider: "none needed".into(), key_id: String::new(), account: None });
            };
            let provider = shared.credentials_provider().ok_or("no provider of credentials is set up")?;
            let found = provider.provide_credentials().await.map_err(|error| chain(&error))?;
            let told = found.get_property::<Vec<AwsCredentialFeature>>();
            Ok(Credentials {
                provider: told
                    .and_then(|told| told.last())
                    .map_or("a provider that does not say its name", named)
                    .into(),
                key_id: found.access_key_id().to_owned(),
                account: found.account_id().map(|id| id.as_str().to_owned()),
            })
        });
        found.await.as_ref().map_err(Clone::clone)
    }

    /// Why no call to AWS is worth making; the fault itself is told by the check `identity`.
    pub(super) async fn blocked(&self) -> Option<Finding> {
        if self.embedded {
            return None;
        }
        if self.region().is_none() {
            return Some(Finding::skipped("", "not looked at: no region", "mend what `identity` says"));
        }
        let missing = self.credentials().await.is_err();
        missing.then(|| Finding::skipped("", "not looked at: no credentials", "mend what `identity` says"))
    }
}

/// The provider of a mark that the SDK leaves on credentials.
fn named(feature: &AwsCredentialFeature) -> &'static str {
    match feature {
        AwsCredentialFeature::CredentialsEnvVars => "environment variables (AWS_ACCESS_KEY_ID)",
        AwsCredentialFeature::CredentialsProfile => "the shared credentials file",
        AwsCredentialFeature::CredentialsProfileStsWebIdToken
        | AwsCredentialFeature::CredentialsEnvVarsStsWebIdToken
        | AwsCredentialFeature::CredentialsStsAssumeRoleWebId => "a web identity token (IRSA)",
        AwsCredentialFeature::CredentialsStsAssumeRole => "an assumed role",
        AwsCredentialFeature::CredentialsSso | AwsCredentialFeature::CredentialsProfileSso => "single sign-on",
        AwsCredentialFeature::CredentialsProcess | AwsCredentialFeature::CredentialsProfileProcess => {
            "a credential process"
        }
        AwsCredentialFeature::CredentialsHttp => "the container's endpoint (EKS Pod Identity, ECS)",
        AwsCredentialFeature::CredentialsImds => "the instance metadata service",
        AwsCredentialFeature::CredentialsLogin | AwsCredentialFeature::CredentialsProfileLogin => "aws login",
        _ => "a provider this version has no name for",
    }
}
