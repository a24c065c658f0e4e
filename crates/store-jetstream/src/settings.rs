//! The settings of a ledger's stream: as it is made, and what keeps another one from being taken.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::stream::{
    Compression, Config, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType,
};
use runledger_events::LogId;

use crate::address::Address;
use crate::subject::subjects_of;

/// The oldest server: the first that takes several messages as one.
pub const SERVER_OLDEST: &str = "2.12.0";
/// The name under which a stream has its log's id.
const LOG_ID: &str = "runledger.log_id";
/// For how long the server knows an id again by itself. What is older is found in the copy.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// The stream of a new ledger.
pub(crate) fn new_stream(address: &Address, log_id: &LogId) -> Config {
    Config {
        name: address.name().to_owned(),
        description: Some("a ledger of runledger".to_owned()),
        subjects: vec![subjects_of(address.name())],
        storage: StorageType::File,
        num_replicas: address.replicas(),
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::New,
        max_bytes: -1,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: -1,
        max_message_size: -1,
        compression: Some(Compression::S2),
        // An administrator may erase a message; whoever appends is kept from it by permissions.
        deny_delete: false,
        deny_purge: true,
        allow_rollup: false,
        // A replica that is behind would answer.
        allow_direct: false,
        allow_atomic_publish: true,
        duplicate_window: DUPLICATE_WINDOW,
        metadata: HashMap::from([(LOG_ID.to_owned(), log_id.to_string())]),
        ..Config::default()
    }
}

/// The log that a stream keeps, or what is wrong with it.
pub(crate) fn log_of(config: &Config, address: &Address) -> Result<LogId, String> {
    let mut problems = Vec::new();
    let mut wants = |holds: bool, problem: &str| {
        if !holds {
            problems.push(problem.to_owned());
        }
    };
    let unlimited = [config.max_bytes, config.max_messages, config.max_messages_per_subject];
    wants(config.subjects == [subjects_of(address.name())], "its subjects are not those of a ledger (`subjects`)");
    wants(config.storage == StorageType::File, "it is kept in memory (`storage`)");
    wants(
        config.num_replicas == address.replicas(),
        &format!(
            "its replicas are {}, and the address says {} (`?replicas={}`)",
            config.num_replicas,
            address.replicas(),
            config.num_replicas
        ),
    );
    wants(config.retention == RetentionPolicy::Limits, "messages go when they are read (`retention`)");
    wants(unlimited.iter().all(|limit| *limit < 0) && config.max_age.is_zero(), "old messages are dropped (`max_*`)");
    wants(config.max_message_size < 0, "large messages are refused (`max_msg_size`)");
    wants(!config.allow_rollup, "a message may take the place of others (`allow_rollup_hdrs`)");
    wants(config.deny_purge, "it can be purged (`deny_purge`)");
    wants(!config.allow_direct, "replicas that are behind may answer (`allow_direct`)");
    wants(config.allow_atomic_publish, "several events are not one append (`allow_atomic`)");
    wants(!config.no_ack, "nothing is acknowledged (`no_ack`)");
    wants(!config.sealed, "it is sealed (`sealed`)");
    wants(!config.allow_message_ttl, "messages may go by themselves (`allow_msg_ttl`)");
    wants(!config.allow_message_counter, "it counts (`allow_msg_counter`)");
    wants(config.first_sequence.is_none_or(|first| first <= 1), "it does not begin at 1 (`first_seq`)");
    wants(config.max_consumers < 0, "only some machines can follow it (`max_consumers`)");
    wants(
        config.mirror.is_none() && config.sources.is_none(),
        "it takes messages from elsewhere (`mirror`, `sources`)",
    );
    wants(config.subject_transform.is_none(), "subjects are changed (`subject_transform`)");
    wants(config.persist_mode != Some(PersistenceMode::Async), "what is acknowledged is not kept yet (`persist_mode`)");
    let log_id = config.metadata.get(LOG_ID).and_then(|id| LogId::new(id.clone()).ok());
    wants(log_id.is_some(), &format!("it has no log's id, so it is not a ledger's (`metadata`, {LOG_ID})"));
    match log_id {
        Some(log_id) if problems.is_empty() => Ok(log_id),
        _ => Err(problems.join("; ")),
    }
}

/// Whether a server is new enough.
pub(crate) fn is_new_enough(version: &str) -> bool {
    let numbers = |text: &str| -> Vec<u64> {
        let text = text.split(['-', '+']).next().unwrap_or_default();
        text.split('.').map_while(|number| number.parse().ok()).collect()
    };
    numbers(version) >= numbers(SERVER_OLDEST)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use super::*;

    fn address() -> Address {
        "nats://a/team".parse().unwrap()
    }

    #[test]
    fn a_new_stream_can_keep_a_ledger_and_each_setting_that_loses_something_is_named() {
        let log_id = LogId::new("0199aaaa-0000-7000-8000-000000000001").unwrap();
        let good = new_stream(&address(), &log_id);
        assert_eq!(log_of(&good, &address()), Ok(log_id));
        type Change = fn(&mut Config);
        let changes: [(&str, Change); 9] = [
            ("max_*", |config| config.max_age = Duration::from_secs(1)),
            ("max_*", |config| config.max_messages = 10),
            ("allow_atomic", |config| config.allow_atomic_publish = false),
            ("allow_rollup", |config| config.allow_rollup = true),
            ("deny_purge", |config| config.deny_purge = false),
            ("storage", |config| config.storage = StorageType::Memory),
            ("replicas=1", |config| config.num_replicas = 1),
            ("metadata", |config| config.metadata.clear()),
            ("subjects", |config| config.subjects.push("other.>".to_owned())),
        ];
        for (named, change) in changes {
            let mut config = good.clone();
            change(&mut config);
            let problems = log_of(&config, &address()).unwrap_err();
            assert!(problems.contains(named), "{named}: {problems}");
        }
    }

    #[test]
    fn a_server_that_takes_no_batches_is_too_old() {
        let found = ["2.12.0", "2.14.0", "2.12.1-RC.2", "3.0", "2.11.9", "2.9.25", "", "x"].map(is_new_enough);
        assert_eq!(found, [true, true, true, true, false, false, false, false]);
    }
}
