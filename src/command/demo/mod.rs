//! `flowshift demo`: a simulated region with planted faults, judged by the real pipeline.
//!
//! Nothing is staged but the traffic and the speed of the clock: reports go over HTTP into the collector and through
//! every stream, stage and commit of `flowshift local`. Baselines come from simulated history ([`crate::stage::seed`]).
//! Read next: [`scene`] (what is played), [`feed`] (how it is sent), [`screen`] and [`text`] (what people see),
//! [`outcome`] (whether it was found).

mod feed;
mod outcome;
mod play;
mod scene;
mod screen;
mod text;

pub(super) use play::run;
