//! Messages on their way: one by itself, several as one; and what the servers' answers mean.
//!
//! Every first message of a subject carries the sequence that its subject has to end at, so that whatever is sent twice stands there
//! once: a retry finds either its place free, or itself.

use std::time::{Duration, Instant};

use async_nats::client::PublishErrorKind;
use async_nats::header::{
    NATS_BATCH_COMMIT, NATS_BATCH_ID, NATS_BATCH_SEQUENCE, NATS_EXPECTED_LAST_SEQUENCE,
    NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_ID,
};
use async_nats::jetstream::ErrorCode;
use async_nats::{Client, HeaderMap, Message, Request, RequestErrorKind};
use serde::Deserialize;

/// The header that every event's message has: one without is somebody else's.
pub(crate) const EVENT: &str = "Runledger-Event";
/// Messages that can be one append.
pub(crate) const BATCH_MAX: usize = 1000;

/// A message.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) subject: String,
    /// Under which the servers know it again.
    pub(crate) id: String,
    /// The sequence of the last message of its subject; none where that is sent with it.
    pub(crate) after: Option<u64>,
    /// The sequence of the last message of all, where it has to be that one.
    pub(crate) after_all: Option<u64>,
    pub(crate) payload: Vec<u8>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// They are stored, in order, up to this sequence.
    Stored(u64),
    /// One or all of them were there already; where, is told of a single one.
    Known(Option<u64>),
    /// Somebody else's message came first; the sequence of the last one of a subject, where it is told.
    Conflict(Option<u64>),
    /// The servers are busy with others of the kind.
    Busy,
    /// Nobody knows.
    Unknown(String),
    /// They will never be stored so.
    Refused(String),
}

#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    domain: Option<String>,
    error: Option<Said>,
}

#[derive(Debug, Deserialize)]
struct Said {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

/// Sends messages, which are stored all or none; all of them together may be under way for so long.
pub(crate) async fn publish(
    client: Client,
    messages: Vec<Outgoing>,
    domain: Option<String>,
    batch: String,
    under_way: Duration,
) -> Outcome {
    let (count, began) = (messages.len(), Instant::now());
    if count > BATCH_MAX {
        return Outcome::Refused(format!("{count} events are one append; {BATCH_MAX} can be"));
    }
    for (index, message) in messages.into_iter().enumerate() {
        let Outgoing { subject, id, after, after_all, payload } = message;
        let is_last = index + 1 == count;
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, id);
        headers.insert(EVENT, "1");
        if let Some(after) = after {
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, after.to_string());
        }
        if let Some(after) = after_all {
            headers.insert(NATS_EXPECTED_LAST_SEQUENCE, after.to_string());
        }
        if count > 1 {
            headers.insert(NATS_BATCH_ID, batch.as_str());
            headers.insert(NATS_BATCH_SEQUENCE, (index + 1).to_string());
            if is_last {
                headers.insert(NATS_BATCH_COMMIT, "1");
            }
        }
        if index > 0 && !is_last {
            // Nobody answers these; what is wrong with one is told at the end.
            match client.publish_with_headers(subject, headers, payload.into()).await {
                Ok(()) => {}
                Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                    return Outcome::Refused(error.to_string());
                }
                Err(error) => return Outcome::Unknown(error.to_string()),
            }
            continue;
        }
        let request = Request::new()
            .headers(headers)
            .payload(payload.into())
            .timeout(Some(under_way.saturating_sub(began.elapsed())));
        match client.send_request(subject, request).await {
            // The first of several is answered without a word.
            Ok(answer) if !is_last && answer.payload.is_empty() && answer.status.is_none() => {}
            Ok(answer) => return outcome(&answer, domain.as_deref()),
            Err(error) => {
                return match error.kind() {
                    RequestErrorKind::MaxPayloadExceeded => Outcome::Refused(error.to_string()),
                    RequestErrorKind::InvalidSubject => Outcome::Refused(error.to_string()),
                    RequestErrorKind::NoResponders => Outcome::Unknown("no server leads the stream".to_owned()),
                    _ => Outcome::Unknown(error.to_string()),
                };
            }
        }
    }
    Outcome::Stored(0)
}

fn outcome(answer: &Message, wanted: Option<&str>) -> Outcome {
    let Ok(Answer { seq, duplicate, domain, error }) = serde_json::from_slice(&answer.payload) else {
        return Outcome::Unknown("an answer that is none of JetStream's".to_owned());
    };
    let Some(Said { err_code, description }) = error else {
        if seq == 0 {
            return Outcome::Unknown("an answer without a sequence".to_owned());
        }
        // A leaf node with streams of its own may have one at the same subjects.
        if wanted.is_some() && domain.as_deref() != wanted {
            let domain = domain.unwrap_or_default();
            return Outcome::Unknown(format!("a stream of another domain answered, `{domain}`"));
        }
        return if duplicate { Outcome::Known(Some(seq)) } else { Outcome::Stored(seq) };
    };
    let is = |code: ErrorCode| err_code == code.0;
    if is(ErrorCode::STREAM_WRONG_LAST_SEQUENCE) {
        // "wrong last sequence: 4"
        let last = description.rsplit(' ').next().and_then(|number| number.parse().ok());
        Outcome::Conflict(last)
    } else if is(ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT)
        || is(ErrorCode::STREAM_DUPLICATE_MESSAGE_CONFLICT)
        || is(ErrorCode::ATOMIC_PUBLISH_TOO_MANY_INFLIGHT)
        || is(ErrorCode::ATOMIC_PUBLISH_INCOMPLETE_BATCH)
    {
        Outcome::Busy
    } else if is(ErrorCode::ATOMIC_PUBLISH_CONTAINS_DUPLICATE_MESSAGE) {
        Outcome::Known(None)
    } else if is(ErrorCode::INSUFFICIENT_RESOURCES)
        || is(ErrorCode::STREAM_STORE_FAILED)
        || (500..600).contains(&err_code)
        || err_code == 0
    {
        Outcome::Unknown(description)
    } else {
        Outcome::Refused(format!("{description} (error {err_code})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Outcome {
        of_domain(json, None)
    }

    fn of_domain(json: &str, domain: Option<&str>) -> Outcome {
        let length = json.len();
        let message = Message {
            subject: "a".into(),
            reply: None,
            payload: json.to_owned().into(),
            headers: None,
            status: None,
            description: None,
            length,
        };
        outcome(&message, domain)
    }

    #[test]
    fn an_answer_says_whether_to_go_on_to_try_again_or_to_look() {
        for (json, meant) in [
            (r#"{"stream":"L","seq":7}"#, Outcome::Stored(7)),
            (r#"{"stream":"L","seq":4,"batch":"B1","count":4}"#, Outcome::Stored(4)),
            (r#"{"stream":"L","seq":7,"duplicate": true}"#, Outcome::Known(Some(7))),
            (
                r#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 4"},"stream":"L","seq":0}"#,
                Outcome::Conflict(Some(4)),
            ),
            (r#"{"error":{"code":400,"err_code":10164,"description":"wrong last sequence"}}"#, Outcome::Busy),
            (r#"{"error":{"code":409,"err_code":10158,"description":"in process"}}"#, Outcome::Busy),
            (r#"{"error":{"code":429,"err_code":10210,"description":"too many inflight"}}"#, Outcome::Busy),
            (r#"{"error":{"code":400,"err_code":10201,"description":"contains duplicate"}}"#, Outcome::Known(None)),
            (
                r#"{"error":{"code":400,"err_code":10060,"description":"no"}}"#,
                Outcome::Refused("no (error 10060)".to_owned()),
            ),
        ] {
            assert_eq!(of(json), meant, "{json}");
        }
        assert!(matches!(of("no JSON"), Outcome::Unknown(_)));
        let stored = r#"{"stream":"L","domain":"hub","seq":7}"#;
        assert_eq!(of_domain(stored, Some("hub")), Outcome::Stored(7));
        assert!(matches!(of_domain(stored, Some("other")), Outcome::Unknown(_)));
    }
}
