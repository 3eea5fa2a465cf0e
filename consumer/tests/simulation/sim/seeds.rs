//! Many seeds on all cores, and the one command that replays a failing one.

use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use super::Violations;
use super::world::World;

/// Virtual time after which a run counts as stuck.
const LIMIT: Duration = Duration::from_secs(3600);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Seeds of the main storm.
pub(crate) const MAIN: u64 = 500;

/// The seeds to try: one when `FLOWSHIFT_SEED` names it, else 1 to `default`. `FLOWSHIFT_SEEDS` is how many the main
/// storm tries; every other story tries as many times more or fewer, at least one.
pub(crate) fn wanted(default: u64) -> Vec<u64> {
    let main = number("FLOWSHIFT_SEEDS").unwrap_or(MAIN);
    match number("FLOWSHIFT_SEED") {
        Some(seed) => vec![seed],
        None => (1..=default.saturating_mul(main).div_ceil(MAIN).max(1)).collect(),
    }
}

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The run's own clock, seconds since its begin.
struct VirtualTime;

impl FormatTime for VirtualTime {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        let since = BEGAN.get().map(|began| began.elapsed().as_secs_f64()).unwrap_or_default();
        write!(w, "{since:9.3}")
    }
}

/// `RUST_LOG` shows what a seed does; without it a storm's errors are expected and not shown.
fn log_to_stderr() {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_timer(VirtualTime);
        log.with_writer(std::io::stderr).try_init().ok();
    }
}

/// Runs one seed on a runtime of its own whose clock jumps.
pub(crate) fn run_one<T>(seed: u64, scenario: impl AsyncFnOnce(World) -> Result<T, String>) -> Result<T, String> {
    log_to_stderr();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.map_err(|e| e.to_string())?.block_on(async {
        BEGAN.set(Some(Instant::now()));
        let world = World::new(seed);
        let violations = world.violations.clone();
        tokio::select! {
            biased;
            // What was seen to go wrong explains more than that the run did not end.
            seen = seen(&violations) => Err(seen),
            ended = tokio::time::timeout(LIMIT, scenario(world)) => {
                let ended = ended.unwrap_or_else(|_| Err("did not come to an end".into()));
                violations.first().map_or(ended, Err)
            }
        }
    })
}

/// Returns once something was seen that must never happen.
async fn seen(violations: &Violations) -> String {
    loop {
        if let Some(what) = violations.first() {
            return what;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Runs the seeds on all cores and returns those that failed, each with the reason, lowest first.
pub(crate) fn failures(
    seeds: &[u64],
    scenario: impl AsyncFn(World) -> Result<(), String> + Sync,
) -> Vec<(u64, String)> {
    let (next, failed) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores.min(seeds.len()) {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    let run = std::panic::AssertUnwindSafe(|| run_one(*seed, &scenario));
                    let outcome = std::panic::catch_unwind(run).unwrap_or_else(|_| Err("panicked".into()));
                    if let Err(what) = outcome {
                        failed.lock().unwrap().push((*seed, what));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap();
    failed.sort();
    failed
}

/// Runs the seeds and fails with the command that replays the first failing one.
pub(crate) fn hold(test: &str, seeds: &[u64], scenario: impl AsyncFn(World) -> Result<(), String> + Sync) {
    let failed = failures(seeds, scenario);
    if let Some((seed, what)) = failed.first() {
        let release = if cfg!(debug_assertions) { "" } else { " --release" };
        let all: Vec<u64> = failed.iter().map(|(seed, _)| *seed).collect();
        panic!(
            "seed {seed}: {what}\nfailing seeds: {all:?}\nreplay: FLOWSHIFT_SEED={seed} RUST_LOG=info \
             cargo test{release} -p flowshift-consumer --test simulation {test}"
        );
    }
}
