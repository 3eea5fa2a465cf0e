//! May a delivery start now?
//!
//! The outbox belongs to whoever holds the lease. A delivery may start only when the last renewal is so young that the
//! request ends before another worker could have taken over; otherwise two workers may tell different stories. The gate is
//! asked before each request; a request under way is bounded by its timeout.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// Says whether a delivery may start.
#[derive(Clone)]
pub struct Gate(Inner);

#[derive(Clone)]
enum Inner {
    Open,
    Renewal { last: watch::Receiver<Option<Instant>>, max_age: Duration },
    Asked(Arc<dyn Fn() -> bool + Send + Sync>),
}

/// How often a gate that is a closure is asked while it is shut.
const ASK_EVERY: Duration = Duration::from_millis(100);

impl Gate {
    /// Always open: for tests and programs without leases.
    #[must_use]
    pub fn open() -> Self {
        Self(Inner::Open)
    }

    /// Open while the last renewal is younger than `max_age` (failover minus request timeout). `None` = lease not held.
    #[must_use]
    pub fn renewal(last: watch::Receiver<Option<Instant>>, max_age: Duration) -> Self {
        Self(Inner::Renewal { last, max_age })
    }

    /// Open while the closure says so. It is asked often and must not block.
    pub fn asked(is_fresh: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Inner::Asked(Arc::new(is_fresh)))
    }

    /// Whether a delivery may start now.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        match &self.0 {
            Inner::Open => true,
            Inner::Renewal { last, max_age } => last.borrow().is_some_and(|at| at.elapsed() < *max_age),
            Inner::Asked(is_fresh) => is_fresh(),
        }
    }

    /// Resolves when the gate is open; at once when it is already. Never when the lease's owner is gone.
    pub async fn wait_fresh(&self) {
        let mut gate = self.clone();
        while !gate.is_fresh() {
            match &mut gate.0 {
                Inner::Open => return,
                Inner::Renewal { last, .. } => {
                    if last.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
                Inner::Asked(_) => tokio::time::sleep(ASK_EVERY).await,
            }
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Gate({})", if self.is_fresh() { "open" } else { "shut" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_shuts_when_the_last_renewal_gets_old_and_opens_with_the_next() {
        let (renewed, last) = watch::channel(None);
        let gate = Gate::renewal(last, Duration::from_secs(5));
        assert!(!gate.is_fresh());
        renewed.send(Some(Instant::now())).unwrap();
        assert!(gate.is_fresh());
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(!gate.is_fresh());
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.wait_fresh().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        renewed.send(Some(Instant::now())).unwrap();
        waiting.await.unwrap();
    }
}
