//! Where a job's leases and state are: on AWS, in the data folder of a stopped `local`, or behind a running one.
//!
//! For the commands that look at a job from outside. A stopped folder is opened (and locked) by starting its services in
//! this process; the services of a running `local` are found by the endpoints it wrote there. Not here: what is read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::anyhow;
use flowshift_consumer::log::{Log, kinesis::KinesisLog};
use flowshift_consumer::run::Tables;
use flowshift_consumer::table::{Table, aws::DynamoTable};

use super::{Failure, load};
use crate::app;
use crate::aws::Clients;
use crate::cli::Settings as Args;
use crate::config::{Config, Settings};

/// A job's stored things, open for reading and mending.
pub(super) struct Store {
    /// The checked configuration.
    pub(super) config: Config,
    /// Ready clients.
    pub(super) clients: Clients,
    pub(super) table: Arc<dyn Table>,
    pub(super) log: Arc<dyn Log>,
    /// Names of the job's tables.
    pub(super) tables: Tables,
    /// Whether it is certain that no worker lives: the folder is ours.
    pub(super) stopped: bool,
    #[cfg(feature = "embedded")]
    embedded: Option<crate::embedded::Embedded>,
}

impl Store {
    /// Opens the job that a folder or the settings name.
    pub(super) async fn open(data_dir: Option<PathBuf>, args: &Args) -> Result<Self, Failure> {
        match data_dir {
            Some(folder) => Self::open_local(&folder, args).await,
            None => {
                let config = load(&Settings::default(), args, Vec::new())?.config;
                let clients = Clients::connect(&config.aws).await.map_err(Failure::start)?;
                Ok(Self::new(config, &clients))
            }
        }
    }

    fn new(config: Config, clients: &Clients) -> Self {
        Self {
            table: Arc::new(DynamoTable::new(clients.dynamodb.clone())),
            log: Arc::new(KinesisLog::new(clients.kinesis.clone())),
            tables: app::tables(&config),
            clients: clients.clone(),
            config,
            stopped: false,
            #[cfg(feature = "embedded")]
            embedded: None,
        }
    }

    #[cfg(feature = "embedded")]
    async fn open_local(folder: &Path, args: &Args) -> Result<Self, Failure> {
        use crate::embedded::Embedded;

        if !folder.join("dynamodb.sqlite").exists() {
            let why = "it holds no dynamodb.sqlite; give the folder that `local` was given with --data-dir";
            return Err(Failure::usage(anyhow!("{} is no data folder of `flowshift local`: {why}", folder.display())));
        }
        let config = load(&Settings::local_defaults(), args, Vec::new())?.config;
        if let Some(endpoints) = Embedded::running(folder)? {
            return Ok(Self::new(config, &Clients::embedded(&endpoints).await));
        }
        let embedded = Embedded::start(folder).await?;
        let clients = Clients::embedded(embedded.endpoints()).await;
        Ok(Self { embedded: Some(embedded), stopped: true, ..Self::new(config, &clients) })
    }

    #[cfg(not(feature = "embedded"))]
    async fn open_local(_folder: &Path, _args: &Args) -> Result<Self, Failure> {
        Err(Failure::usage(anyhow!("this build has no embedded services: --data-dir cannot be read")))
    }

    /// Ends what was started.
    pub(super) async fn close(self) {
        #[cfg(feature = "embedded")]
        if let Some(embedded) = self.embedded {
            embedded.stop().await;
        }
    }

    /// The job's streams, or the one that `name` means: its role (flows, exchange, evidence) or its own name.
    pub(super) fn streams(&self, name: Option<&str>) -> Result<Vec<String>, Failure> {
        let streams = &self.config.streams;
        let all = [("flows", &streams.flows), ("exchange", &streams.exchange), ("evidence", &streams.evidence)];
        let Some(name) = name else { return Ok(all.map(|(_, stream)| stream.clone()).to_vec()) };
        match all.iter().find(|(role, stream)| *role == name || stream.as_str() == name) {
            Some((_, stream)) => Ok(vec![(*stream).clone()]),
            None => {
                let names = all.map(|(role, stream)| format!("{role} ({stream})")).join(", ");
                Err(Failure::usage(anyhow!(
                    "--stream {name}: no such stream of job {}; it has {names}",
                    self.config.job
                )))
            }
        }
    }
}
