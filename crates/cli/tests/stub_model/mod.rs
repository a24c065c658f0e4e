//! A model server on loopback for the real clients: scripted words, as server-sent events, for Claude Code and Codex; and
//! where the clients are.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, reason = "each test uses a part, and may fail loudly")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// What the model is to say: a tool call in each of the first turns, then a message.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// What it says before its first call.
    pub(crate) opening: &'static str,
    /// A client's own item for each call: a `tool_use` block (without an id) or a Responses item.
    pub(crate) calls: Vec<Value>,
    pub(crate) ending: &'static str,
}

/// The server; it ends with the test's process.
pub(crate) struct StubModel {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl StubModel {
    pub(crate) fn start(script: Script) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = asked.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (script, heard) = (script.clone(), heard.clone());
                // A client that goes away in the middle is no fault of the server's.
                std::thread::spawn(move || drop(answer(client, &script, &heard)));
            }
        });
        Self { address, asked }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What the clients asked the model, in order.
    pub(crate) fn asked(&self) -> Vec<Value> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(client: TcpStream, script: &Script, heard: &Mutex<Vec<Value>>) -> std::io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut reader = BufReader::new(client.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let path = request.split_whitespace().nth(1).unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    let events = match (request.starts_with("POST"), path) {
        (true, "/v1/messages") => messages(&body, script),
        (true, "/v1/responses") => responses(&body, script),
        _ => return write!(&client, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
    };
    heard.lock().unwrap().push(body);
    write!(&client, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")?;
    for event in events {
        write!(&client, "event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default())?;
    }
    Ok(())
}

/// How many calls have had their result, going by what the client sends along.
fn results(items: &Value, is_result: impl Fn(&Value) -> bool) -> usize {
    items.as_array().into_iter().flatten().filter(|item| is_result(item)).count()
}

/// Claude Code's protocol.
fn messages(body: &Value, script: &Script) -> Vec<Value> {
    let is_result = |message: &Value| {
        message["content"].as_array().into_iter().flatten().any(|block| block["type"] == "tool_result")
    };
    let turn = results(&body["messages"], is_result);
    // What a client asks without tools is for itself: a title, say.
    let call = script.calls.get(turn).filter(|_| body["tools"].as_array().is_some_and(|tools| !tools.is_empty()));
    let mut blocks = Vec::new();
    let said = if call.is_none() { script.ending } else { script.opening };
    if call.is_none() || turn == 0 {
        blocks.push((json!({"type": "text", "text": ""}), json!({"type": "text_delta", "text": said})));
    }
    if let Some(call) = call {
        let mut block = call.clone();
        let input = std::mem::replace(&mut block["input"], json!({})).to_string();
        block["id"] = json!(format!("toolu_stub_{turn}"));
        blocks.push((block, json!({"type": "input_json_delta", "partial_json": input})));
    }
    let message = json!({"id": format!("msg_stub_{turn}"), "type": "message", "role": "assistant", "content": [],
        "model": body["model"], "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": 11, "output_tokens": 1, "cache_creation_input_tokens": 3, "cache_read_input_tokens": 4}});
    let mut events = vec![json!({"type": "message_start", "message": message})];
    for (index, (block, delta)) in blocks.into_iter().enumerate() {
        events.push(json!({"type": "content_block_start", "index": index, "content_block": block}));
        events.push(json!({"type": "content_block_delta", "index": index, "delta": delta}));
        events.push(json!({"type": "content_block_stop", "index": index}));
    }
    let reason = if call.is_some() { "tool_use" } else { "end_turn" };
    events.push(json!({"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": null},
        "usage": {"output_tokens": 20 + turn}}));
    events.push(json!({"type": "message_stop"}));
    events
}

/// Codex's protocol.
fn responses(body: &Value, script: &Script) -> Vec<Value> {
    let is_result = |item: &Value| item["type"].as_str().is_some_and(|kind| kind.ends_with("_call_output"));
    let turn = results(&body["input"], is_result);
    let mut items = Vec::new();
    let call = script.calls.get(turn);
    if call.is_none() || turn == 0 {
        let said = if call.is_none() { script.ending } else { script.opening };
        items.push(json!({"type": "message", "role": "assistant", "id": format!("msg_stub_{turn}"),
            "content": [{"type": "output_text", "text": said}]}));
    }
    if let Some(call) = call {
        let mut call = call.clone();
        call["call_id"] = json!(format!("call_stub_{turn}"));
        items.push(call);
    }
    let id = format!("resp_stub_{turn}");
    let mut events = vec![json!({"type": "response.created", "response": {"id": id}})];
    events.extend(items.into_iter().map(|item| json!({"type": "response.output_item.done", "item": item})));
    let usage = json!({"input_tokens": 100, "input_tokens_details": {"cached_tokens": 20}, "output_tokens": 10,
        "output_tokens_details": null, "total_tokens": 110});
    events.push(json!({"type": "response.completed", "response": {"id": id, "usage": usage}}));
    events
}

/// Where a client is; none, and a word about it, where it is not installed.
pub(crate) fn client(name: &str) -> Option<PathBuf> {
    let installed = std::env::var_os("RUNLEDGER_CLIENTS").map(|folder| PathBuf::from(folder).join("node_modules/.bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = installed.into_iter().chain(std::env::split_paths(&path));
    let found = folders.find_map(|folder| folder.join(name).canonicalize().ok());
    if found.is_none() {
        assert!(std::env::var_os("RUNLEDGER_REQUIRE_CLIENTS").is_none(), "{name} is not installed, and has to be");
        // Not by `eprintln!`, whose words the test runner keeps to itself when a test passes.
        let _ = writeln!(std::io::stderr(), "skipped: {name} is not installed");
    }
    found
}

/// What Claude Code needs in its environment to ask this model and nobody else.
pub(crate) fn claude_env(model: &StubModel) -> Vec<(&'static str, String)> {
    vec![
        ("ANTHROPIC_BASE_URL", model.url()),
        ("ANTHROPIC_API_KEY", "dummy".to_owned()),
        ("DISABLE_AUTOUPDATER", "1".to_owned()),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
        ("CLAUDE_CODE_MAX_RETRIES", "2".to_owned()),
    ]
}
