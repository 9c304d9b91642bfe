//! How the service is reached: a service that starts again may have another address.

use std::sync::{Arc, Mutex, PoisonError};

use s0_api::Client;

type Find = dyn Fn() -> Result<Client, String> + Send + Sync;

/// The service, as it was found last.
#[derive(Clone)]
pub struct Reach {
    find: Arc<Find>,
    found: Arc<Mutex<Client>>,
}

impl std::fmt::Debug for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reach").field("client", &self.client()).finish_non_exhaustive()
    }
}

impl Reach {
    /// The service that `find` finds; it is asked again when a connection broke.
    ///
    /// # Errors
    /// It finds none; why, in words.
    pub fn new(
        find: impl Fn() -> Result<Client, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let found = Arc::new(Mutex::new(find()?));
        Ok(Self { find: Arc::new(find), found })
    }

    /// A client of it.
    #[must_use]
    pub fn client(&self) -> Client {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks for it again. Where it is not found, it may come back where it was.
    pub(crate) fn look_again(&self) {
        match (self.find)() {
            Ok(client) => *self.found.lock().unwrap_or_else(PoisonError::into_inner) = client,
            Err(why) => tracing::debug!(why, "the service is not found"),
        }
    }
}
