//! Delivers entries of the committed outbox to receivers, each in the form it wishes.
//!
//! What comes in is already decided and committed; this module owns only the way out: who is told what, the form, signing,
//! order per incident, retries, expiry, and which addresses may be called. It decides nothing about incidents.
//!
//! Invariants:
//! * an entry's `webhook-id` never changes, so a receiver can drop repeats (delivery is at least once);
//! * entries of one incident reach an endpoint in order, the next not before the last is done there;
//! * nothing is sent while the gate is not fresh (the lease may belong to another worker by now);
//! * an outcome is reported only when every endpoint is done with the entry;
//! * that an endpoint is disabled is seen by the stage before the outcome of any entry dropped for it.
//!
//! Reading order: `delivery` (what goes in and out), `endpoint`, `filter`, `format`, `key` and `secret`, `schedule`, `gate`,
//! then `deliverer` (fan-out), `worker` (one endpoint) with its `queue`, `memory`, `disabled` and `switch`, and at the edge
//! `transport` and `address`.

mod address;
mod attempt;
mod clock;
mod deliverer;
mod delivery;
mod disabled;
mod endpoint;
mod filter;
mod format;
mod gate;
mod key;
mod memory;
mod queue;
mod schedule;
mod secret;
mod switch;
mod transport;
mod worker;

#[cfg(test)]
mod tests;

pub use address::{Forbidden, is_forbidden};
pub use attempt::Attempt;
pub use clock::WallClock;
pub use deliverer::{Deliverer, DrainHandle, Options, SendError, send_once};
pub use delivery::{Delivery, DropReason, Outcome};
pub use disabled::{Disabled, DisabledEndpoints, UrlDigest};
pub use endpoint::{Endpoint, EndpointError};
pub use filter::{Filter, Map, Places, SubnetPlace, SubnetWish};
pub use format::Format;
pub use gate::Gate;
pub use key::KeyStore;
pub use schedule::{Schedule, ScheduleError};
pub use secret::{SecretError, Secrets};
pub use switch::{Board, EnableError, SwitchState, Switches};
pub use transport::{HttpTransport, Reply, Request, Transport, TransportError, TransportSetupError};
