//! What a job costs in DynamoDB, and how long its leases take to find owners, from 1 to 1,000 shards.
//!
//! ```text
//! cargo run --release -p flowshift-consumer --example cost                       # 1, 10, 100 and 1,000 shards
//! cargo run --release -p flowshift-consumer --example cost -- --shards 10 --json
//! cargo run --release -p flowshift-consumer --example cost -- --wire 1,10        # the same units as the service counts them
//! ```
//!
//! The engine runs in virtual time on streams and tables in memory, with every time of [`Timing::default`] (commits
//! every 10 s), 5 ms for an answer of DynamoDB and 15 ms for one of Kinesis. Each item's size is priced by AWS's
//! documented rule ([`Metered`]); `--wire` checks that rule against a real service's own account. The job has
//! flowshift's shape: 64 lanes, 100 pairs per input shard, 1 KB per pair, 30 % of the pairs seen in 10 s at full load.
//! All workers start together; later one is killed.
//!
//! Reading order: `world` (workers and input), `job` (what they run), `report`; `port` and `stream` are the world's
//! walls; `wire` stands beside them.
//!
//! [`Timing::default`]: flowshift_consumer::run::Timing
//! [`Metered`]: flowshift_consumer::table::metered::Metered

mod job;
mod port;
mod report;
#[path = "../hand_over/services.rs"]
mod services;
mod stream;
mod wire;
mod world;

use std::time::{Duration, SystemTime};

use clap::Parser;
use flowshift_consumer::table::TableName;
use tokio::time::sleep;

use report::{Load, Measured};
use world::{EVIDENCE, EXCHANGE, INPUT, Size, World};

/// Anything that ends the program early.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Until windows are full and everything that is idle has been declared so.
const WARM_UP: Duration = Duration::from_secs(90);
/// Idleness repeats itself from commit to commit.
const IDLE: Duration = Duration::from_secs(180);

/// Measures what a job costs in DynamoDB.
#[derive(Debug, Clone, Parser)]
struct Args {
    /// Numbers of input shards.
    #[arg(long, value_delimiter = ',', default_value = "1,10,100,1000")]
    shards: Vec<u32>,
    /// Lanes of the job.
    #[arg(long, default_value_t = 64)]
    lanes: u32,
    /// Virtual minutes of full load; 8 hold a whole cycle of deltas and base.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// Seed of the input.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Instead, run jobs of these sizes over the real wire and compare units with the service's account.
    #[arg(long, value_delimiter = ',')]
    wire: Vec<u32>,
    /// Seconds of each run over the wire.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Tell of every move of a lease on standard error.
    #[arg(long)]
    moves: bool,
    /// Print JSON, an object per size, instead of the tables.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let level = if args.moves { tracing::Level::INFO } else { tracing::Level::ERROR };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level).init();
    if !args.wire.is_empty() {
        let (runtime, time) = (tokio::runtime::Runtime::new()?, Duration::from_secs(args.seconds));
        for shards in &args.wire {
            let size = Size::of(*shards, args.lanes);
            wire::print(size, time, &runtime.block_on(wire::run(size, time))?);
        }
        return Ok(());
    }
    let mut all = Vec::new();
    for shards in &args.shards {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
        let measured = runtime.block_on(measure(Size::of(*shards, args.lanes), &args))?;
        eprintln!("{shards} shards: {:.0} s", measured.cpu.as_secs_f64());
        all.push(measured);
    }
    if args.json {
        all.iter().for_each(|measured| println!("{}", measured.json()));
    } else {
        report::print(&all);
    }
    Ok(())
}

async fn measure(size: Size, args: &Args) -> Result<Measured, Failure> {
    let (began, stretch) = (SystemTime::now(), Duration::from_secs(args.minutes * 60));
    let mut world = World::new(size, args.seed);
    let (clock, shards) = (tokio::time::Instant::now(), size.shards);
    let tell = |what: &str| {
        let run = began.elapsed().unwrap_or_default();
        eprintln!(
            "{shards} shards: {what} at {:.0} s, after {:.0} s",
            clock.elapsed().as_secs_f64(),
            run.as_secs_f64()
        );
    };
    world.start()?;
    let start = world.converge().await?;
    tell("leases rest");
    world.produce().await?;
    sleep(WARM_UP).await;
    world.meter.reset();
    sleep(stretch).await;
    tell("full load measured");
    let full = Load::of(&world.meter, stretch);
    let stored = |name: TableName| world.meter.stored(&name).1;
    let lease_bytes = [INPUT, EXCHANGE, EVIDENCE].map(|stream| stored(world.tables.leases(stream))).iter().sum();
    let state = world.tables.state();
    let parts = ["beats", "control", "once"].into_iter().chain(port::CHUNKS);
    let parts = parts.map(|kind| stored(TableName { name: format!("{}#{kind}", state.name), key: state.key }));
    let state_bytes = parts.sum();
    world.quiet();
    sleep(WARM_UP).await;
    world.meter.reset();
    sleep(IDLE).await;
    tell("idleness measured");
    let idle = Load::of(&world.meter, IDLE);
    let lost_leases = world.kill_one().await?;
    let loss = world.converge().await?;
    Ok(Measured {
        size,
        start,
        loss,
        lost_leases,
        full,
        idle,
        lease_bytes,
        state_bytes,
        late: world.log.late(),
        cpu: began.elapsed()?,
    })
}
