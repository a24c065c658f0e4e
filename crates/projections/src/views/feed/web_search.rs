//! Web searches: what a search tool's call and result say in words.

use runledger_events::ObjectText;

use super::incoming::Incoming;
use super::mapper::Draft;
use super::text;

/// The entry for a search that begins.
pub(super) fn started(event: &Incoming<'_>, tool_use_id: Option<&str>) -> Draft {
    let query = query(event);
    let message = match query.as_deref().filter(|query| !query.is_empty()) {
        Some(query) => format!("Searching web for \"{query}\"."),
        None => "Searching the web.".to_owned(),
    };
    let data = ObjectText::new()
        .text("message", message.as_str())
        .text("phase", "started")
        .text("query", query.as_deref())
        .text("item_id", tool_use_id);
    Draft::new("web.search", text::title(&message), data)
}

/// The entry for a search that is over.
pub(super) fn completed(event: &Incoming<'_>, tool_use_id: Option<&str>) -> Draft {
    let response = event.data.object("tool_response").unwrap_or_default();
    let (query, action) = (query(event), response.text("type"));
    let (url, pattern) = (response.text("url"), response.text("pattern"));
    let queries = response.list("queries").map(|queries| queries.len());
    let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let page = url.clone().unwrap_or_else(|| "the page".to_owned());
    let message = match action.as_deref() {
        Some("openPage") => match said(&url) {
            Some(url) => format!("Opened search result {url}."),
            None => "Opened search result.".to_owned(),
        },
        Some("findInPage") => match said(&pattern) {
            Some(pattern) => format!("Found \"{pattern}\" in {page}."),
            None => format!("Searched within {page}."),
        },
        Some("search") => match (queries, said(&query)) {
            (Some(queries), _) if queries > 1 => format!("Ran {queries} search queries."),
            (_, Some(query)) => format!("Searched web for \"{query}\"."),
            (_, None) => "Finished web search.".to_owned(),
        },
        _ => match said(&query) {
            Some(query) => format!("Finished web search for \"{query}\"."),
            None => "Finished web search.".to_owned(),
        },
    };
    let data = ObjectText::new()
        .text("message", message.as_str())
        .text("phase", "completed")
        .text("query", query.as_deref())
        .text("action_type", action.as_deref())
        .text("url", url.as_deref())
        .text("pattern", pattern.as_deref())
        .raw("queries", response.raw("queries").filter(|json| json.starts_with('[')))
        .text("item_id", tool_use_id);
    Draft::new("web.search", text::title(&message), data)
}

fn query(event: &Incoming<'_>) -> Option<String> {
    event.data.object("tool_input").and_then(|input| input.text("query"))
}
