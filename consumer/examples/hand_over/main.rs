//! How long a shard goes unread when its worker leaves, dies, or is restarted in turn with all the others.
//!
//! ```text
//! cargo run --release -p flowshift-consumer --example hand_over            # all four tables, about eight minutes
//! cargo run --release -p flowshift-consumer --example hand_over -- --only kill --trials 60 --json
//! ```
//!
//! The program starts itself as worker processes and sends them real signals. Kinesis and DynamoDB run in the first
//! process, workers reach them through the AWS SDK, every time is [`Timing::default`]. Several jobs run side by side,
//! each with its own stream and tables. Records trickle into every shard; a worker tells each record it processed with
//! the machine's monotonic clock. A trial's figure is that of its *slowest* shard: from the signal to the first record
//! that another worker's stage processed. The moment of the signal is random against every beat and pass.
//!
//! Reading order: `scenario` (what is done to a job), `job` (its processes and what they tell), `worker` (the other
//! side of the pipe), `report`.
//!
//! [`Timing::default`]: flowshift_consumer::run::Timing

mod job;
mod protocol;
mod report;
mod scenario;
mod services;
mod worker;

use std::path::PathBuf;

use clap::Parser;
use futures::future::join_all;

use job::{Job, Plan};
use report::Trial;
use scenario::Scenario;

/// Anything that ends the program early.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Measures how fast shards change hands.
#[derive(Debug, Clone, Parser)]
struct Args {
    /// Trials of each kind, over all jobs; 30 at least for a p99 worth its name.
    #[arg(long, default_value_t = 36)]
    trials: u32,
    /// Jobs that run side by side.
    #[arg(long, default_value_t = 4)]
    jobs: u32,
    /// Worker processes of a job.
    #[arg(long, default_value_t = 4)]
    workers: u32,
    /// Shards of a job's stream.
    #[arg(long, default_value_t = 8)]
    shards: u32,
    /// Only this kind.
    #[arg(long)]
    only: Option<Scenario>,
    /// Seed of the victims and moments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// Keep each worker's log in this folder.
    #[arg(long)]
    logs: Option<PathBuf>,
    /// Be a worker of this job (the program calls itself).
    #[arg(long, hide = true, num_args = 4, value_names = ["KINESIS", "DYNAMODB", "JOB", "WORKER"])]
    worker: Option<Vec<String>>,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    if let Some(words) = &args.worker {
        return worker::run(words);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(args))
}

async fn measure(args: Args) -> Result<(), Failure> {
    let load = report::machine_load();
    let (_emulator, endpoints) = services::start().await?;
    let scenarios: Vec<Scenario> = args.only.map_or_else(|| Scenario::ALL.to_vec(), |only| vec![only]);
    let each = args.trials.div_ceil(args.jobs.max(1));
    let jobs = (0..args.jobs.max(1)).map(|index| {
        let plan = Plan {
            name: format!("job{index}"),
            workers: args.workers.max(2),
            shards: args.shards.max(1),
            seed: args.seed.wrapping_add(u64::from(index)),
            logs: args.logs.clone(),
        };
        one_job(plan, endpoints.clone(), scenarios.clone(), each)
    });
    let mut trials: Vec<Trial> = Vec::new();
    for done in join_all(jobs).await {
        trials.extend(done?);
    }
    report::print(&args, &scenarios, &trials, [load, report::machine_load()])?;
    Ok(())
}

/// Every scenario on one job, one after the other.
async fn one_job(
    plan: Plan,
    endpoints: services::Endpoints,
    scenarios: Vec<Scenario>,
    each: u32,
) -> Result<Vec<Trial>, Failure> {
    let name = plan.name.clone();
    let mut job = Job::start(plan, endpoints).await?;
    let mut trials = Vec::new();
    for scenario in scenarios {
        for _ in 0..each {
            // A job that comes to a standstill ends; what it measured counts, and the table shows fewer trials.
            match scenario.run(&mut job).await {
                Ok(trial) => {
                    eprintln!("{name} {trial}");
                    trials.push(trial);
                }
                Err(e) => {
                    eprintln!("{name}: {e}");
                    return Ok(trials);
                }
            }
        }
    }
    Ok(trials)
}
