//! A name that is held as long as its holder lives, for those who cannot see the holder's process.

/// A name that is held: dropping it gives it up.
///
/// An engine whose servers outlive its clients keeps it: a holder that is gone has lost it after the engine's time, 15 seconds with
/// NATS. It says who is at work, and protects nothing: what two write at once, the expected version decides.
pub struct Lease(#[allow(dead_code, reason = "it is dropped")] Box<dyn Send>);

impl Lease {
    /// What is dropped when it is given up.
    pub fn new(held: impl Send + 'static) -> Self {
        Self(Box::new(held))
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lease(…)")
    }
}
