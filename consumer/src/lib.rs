//! A stateful Kinesis consumer.
pub mod clock;
pub mod commit;
pub mod exchange;
pub mod inspect;
pub mod lease;
pub mod log;
pub mod metrics;
pub mod run;
pub mod shard;
pub mod stage;
pub mod table;
