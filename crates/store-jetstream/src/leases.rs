//! Who is at work, in a bucket of keys that go by themselves: a holder renews its key, and whoever looks sees whether it is there.

use std::time::Duration;

use async_nats::jetstream::kv::{Config, Store};
use runledger_store::{Lease, StorageError};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::log::JetStreamLog;
use crate::subject::escaped;

/// How long a key stays that nobody renews.
const STAYS: Duration = Duration::from_secs(15);
/// How often it is renewed.
const RENEWED: Duration = Duration::from_secs(4);
/// How soon it is tried again, where that failed.
const TRIED_AGAIN: Duration = Duration::from_millis(500);
/// How long a holder waits until its key is gone, when it gives it up.
const FAREWELL: Duration = Duration::from_millis(500);

/// A key that is held.
struct Held {
    renewing: AbortHandle,
    runtime: Handle,
    store: Store,
    key: String,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.renewing.abort();
        let (store, key) = (self.store.clone(), self.key.clone());
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            // Where it cannot be said, it goes by itself.
            let _ = store.delete(key).await;
            let _ = tell.send(());
        });
        let _ = told.recv_timeout(FAREWELL);
    }
}

impl JetStreamLog {
    /// Holds a key, with what says who does.
    pub(crate) fn hold_key(&self, name: &str, value: &str) -> Result<Option<Lease>, StorageError> {
        let store = self.bucket()?;
        let (key, value) = (escaped(name), value.to_owned());
        let (put_in, put_key, put_value) = (store.clone(), key.clone(), value.clone());
        let put = self.engine().wait(async move { put_in.put(put_key, put_value.into()).await.map(drop) });
        let mut is_put = matches!(put, Some(Ok(())));
        let Some(runtime) = self.engine().runtime().map(|runtime| runtime.handle().clone()) else {
            return Ok(None);
        };
        let (renewed, renewed_key) = (store.clone(), key.clone());
        let task = runtime.spawn(async move {
            loop {
                tokio::time::sleep(if is_put { RENEWED } else { TRIED_AGAIN }).await;
                let put = renewed.put(renewed_key.clone(), value.clone().into()).await;
                if let Err(error) = &put {
                    tracing::warn!(%error, key = renewed_key, "who is at work cannot be told");
                }
                is_put = put.is_ok();
            }
        });
        Ok(Some(Lease::new(Held { renewing: task.abort_handle(), runtime, store, key })))
    }

    /// Whether somebody holds a key.
    pub(crate) fn has_key(&self, name: &str) -> Result<Option<bool>, StorageError> {
        let (store, key) = (self.bucket()?, escaped(name));
        match self.engine().wait(async move { store.get(key).await }) {
            Some(Ok(found)) => Ok(Some(found.is_some())),
            Some(Err(error)) => Err(self.failed(error.to_string())),
            None => Err(self.failed("the connection broke".to_owned())),
        }
    }

    /// The bucket of the ledger's keys, which is made where it is missing.
    fn bucket(&self) -> Result<Store, StorageError> {
        let address = self.engine().address();
        let bucket = format!("{}-leases", address.name());
        let config = Config {
            bucket: bucket.clone(),
            description: "who is at work in a ledger of runledger".to_owned(),
            history: 1,
            max_age: STAYS,
            num_replicas: address.replicas(),
            ..Config::default()
        };
        let context = self.engine().context().clone();
        let found = self.engine().wait(async move {
            match context.get_key_value(&bucket).await {
                Ok(store) => Ok(store),
                Err(_) => match context.create_key_value(config).await {
                    Ok(store) => Ok(store),
                    // Somebody else may have made it meanwhile.
                    Err(error) => context.get_key_value(&bucket).await.map_err(|_| error.to_string()),
                },
            }
        });
        found.unwrap_or_else(|| Err("the connection broke".to_owned())).map_err(|detail| self.failed(detail))
    }
}
