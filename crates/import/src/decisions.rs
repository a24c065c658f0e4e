//! Decisions: the old tables have only what the mapper made of one; this gives the decision that it makes that of.
//!
//! | feed event | `decision_type` | the decision |
//! | --- | --- | --- |
//! | `permission.decision` | `allow` | `json` with the intent `permission_allow` |
//! | | `deny` with a message | `json` with the intent `permission_deny` and that reason |
//! | | `no_opinion`, reason timeout, user or rule | `passthrough` from that source |
//! | | `no_opinion`, any other reason | `json` without an intent |
//! | `stop.decision` | `block` with a reason | `json` whose `data` says so |
//! | | `allow` | `json` without `data` |
//! | | `no_opinion` | as above |
//!
//! Who decided is told by the actor: the user, or for anyone else a rule.

use runledger_events::ObjectText;
use serde_json::Value;

/// The decision that this feed event was made of, as JSON text; `None` for any other feed event, and for a type of
/// decision that the mapper never made.
pub(crate) fn decision_of(feed_event: &Value) -> Option<String> {
    let text = |pointer: &str| feed_event.pointer(pointer).and_then(Value::as_str);
    let is_permission = match text("/kind")? {
        "permission.decision" => true,
        "stop.decision" => false,
        _ => return None,
    };
    let source = if text("/actor_id") == Some("user") { "user" } else { "rule" };
    let decision = |kind: &str, source: &str| ObjectText::new().text("type", kind).text("source", source);
    let intent = |kind: &str| ObjectText::new().text("kind", kind);
    let told = match (text("/data/decision_type")?, is_permission) {
        ("allow", true) => decision("json", source).raw("intent", intent("permission_allow").finish().as_str()),
        ("deny", true) => {
            let intent = intent("permission_deny").text("reason", text("/data/message")?);
            decision("json", source).raw("intent", intent.finish().as_str())
        }
        ("allow", false) => decision("json", source),
        ("block", false) => {
            let data = ObjectText::new().text("decision", "block").text("reason", text("/data/reason")?);
            decision("json", source).raw("data", data.finish().as_str())
        }
        ("no_opinion", _) => match text("/data/reason") {
            Some(told @ ("timeout" | "user" | "rule")) => decision("passthrough", told),
            _ if is_permission => decision("json", source),
            _ => return None,
        },
        _ => return None,
    };
    Some(told.finish())
}
