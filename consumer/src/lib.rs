//! A stateful consumer for Amazon Kinesis Data Streams: state and checkpoint are committed together, fenced, in
//! DynamoDB, so that every record counts once whatever dies in between.
//!
//! It is a library of its own: streams, shards, leases, lanes, state. It does not know what the records mean; a job
//! implements one of three small traits of [`stage`].
//!
//! # What is promised
//!
//! * **Effectively-once state.** A record's effect on committed state happens once: through crashes, lease moves,
//!   paused workers that wake up later, lost answers, throttling, repeated puts between the stages, and resharding.
//!   What a *producer* puts twice is two records.
//! * **Nothing is skipped on an error.** A stage that fails stops its shard; the shard starts again from its commit,
//!   after a growing pause, and says so ([`metrics`], logs). Bytes that cannot be read are the stage's to count.
//! * **Outputs at least once, with the same bytes.** What a reducer or stage puts into a stream may stand there again
//!   after a crash; mappers' batches are numbered and repeats of them are dropped by the lanes.
//! * **Lost means stopped.** A missing batch number is proof of loss and stops the shard.
//! * **A seed reproduces a run.** Time is tokio's, the wall clock is an argument, streams and tables are traits.
//!
//! Not promised: side effects outside the state are the stage's own business (a [`Handle`](run::Handle) tells when the
//! lease is lost). Records that expire before they were read are gone, which is counted and told to the stage. A worker
//! does not start beside live workers of a Java KCL application on the same lease table.
//!
//! # A stage in thirty lines
//!
//! ```no_run
//! use flowshift_consumer::log::Record;
//! use flowshift_consumer::run::{Worker, WorkerError};
//! use flowshift_consumer::stage::{ShardContext, Stage, StageError, StatePart};
//!
//! /// Counts the bytes of one shard. A child starts at zero; the sum over all shards, ended ones too, is the answer.
//! struct Bytes {
//!     shard: String,
//!     count: u64,
//! }
//!
//! impl Stage for Bytes {
//!     fn restore(&mut self, parts: Vec<StatePart>) -> Result<(), StageError> {
//!         for (_, stored) in parts {
//!             let number = stored.as_ref().try_into().map_err(|e| StageError::with("stored count", e))?;
//!             self.count = u64::from_be_bytes(number);
//!         }
//!         Ok(())
//!     }
//!     fn process(&mut self, record: &Record) -> Result<(), StageError> {
//!         self.count += record.data.len() as u64;
//!         Ok(())
//!     }
//!     fn save(&mut self) -> Result<Vec<StatePart>, StageError> {
//!         Ok(vec![(self.shard.clone(), self.count.to_be_bytes().to_vec().into())])
//!     }
//!     fn restores(&self, key: &str) -> bool {
//!         key == self.shard
//!     }
//!     fn keeps(&self, key: &str) -> bool {
//!         key == self.shard
//!     }
//! }
//!
//! # async fn serve(worker: Worker) -> Result<(), WorkerError> {
//! # let (leave, (_ends, end_input)) = (tokio_util::sync::CancellationToken::new(), tokio::sync::watch::channel(None));
//! let bytes = |context: &ShardContext, _lease| Bytes { shard: context.shard.to_string(), count: 0 };
//! worker.stage("my-stream", bytes).run(leave, end_input).await
//! # }
//! ```
//!
//! `examples/word_count.rs` is a whole program: run it, kill it with signal 9, run it again. A job over keys that any
//! shard may carry takes a [`Mapper`](stage::Mapper) and a [`Reducer`](stage::Reducer); `tests/simulation` has a small
//! pair of them.
//!
//! # Reading order
//!
//! 1. [`stage`]: the traits a job implements.
//! 2. [`run`]: the worker, the leader, and the drivers that call the traits.
//! 3. [`commit`]: chunks, deltas, pages, manifests, fences, cuts: what is stored where, and how state and checkpoint
//!    move together.
//! 4. [`lease`]: the row that is the only commit point, and who may write it.
//! 5. [`exchange`]: what travels from mappers to lanes: numbered batches, marks, source set, watermarks.
//! 6. [`log`] and [`table`]: the seams to Kinesis and DynamoDB, each with a twin in memory; [`shard`], [`clock`];
//!    [`kpl`]: records inside records.
//! 7. [`inspect`]: reading committed state from outside; [`resolve`]: an operator's way past a loss; [`skip`]: going on
//!    without a lane that stands still; [`metrics`]; [`aws`]: how answers are sorted and counted.
//!
//! # Fail points
//!
//! With the feature `failpoints` of the crate `fail`, and `FailScenario::setup` called at the start, the process aborts
//! without any clean-up at a place that the environment variable `FAILPOINTS` names, as in
//! `FAILPOINTS='map::after_cut=2*off->return'` (the third time). Without the feature they are nothing.
//!
//! | name | the process dies |
//! |---|---|
//! | `map::after_chunks` | after a mapper's state is stored, before the cut that names it |
//! | `map::after_cut` | after a batch is cut, before any of it is emitted |
//! | `map::mid_emit` | after each acknowledged request of a batch |
//! | `map::after_emit` | after a whole batch is emitted |
//! | `map::after_settle` | after the checkpoint moved behind the last batch, at a shard's or the input's end |
//! | `stage::after_outputs` | after a commit's outputs are acknowledged, before its state is stored |
//! | `stage::after_chunks` | after the state is stored, before the row names it |
//! | `stage::after_commit` | after the row names it |

pub mod aws;
pub mod clock;
pub mod commit;
pub mod exchange;
pub mod inspect;
pub mod kpl;
pub mod lease;
pub mod log;
pub mod metrics;
mod planted;
pub mod resolve;
pub mod run;
pub mod shard;
pub mod skip;
pub mod stage;
pub mod table;
