//! A writer that links `runledger-store` alone: appends what it is told to a session, and shows what a conflict is.
//!
//! `cargo run -p runledger-example-writer -- LEDGER SESSION TEXT…`

use runledger_store::events::{Metadata, RuntimeEvent, SessionId, StreamName};
use runledger_store::{AppendError, EventLog, ExpectedVersion, NewEvent, Read, SqliteLog};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(ledger), Some(session)) = (arguments.next(), arguments.next()) else {
        return Err("usage: writer LEDGER SESSION TEXT…".into());
    };
    let session = SessionId::new(session)?;
    let stream = StreamName::session(&session);
    let log = SqliteLog::open(ledger)?;
    let version = log.reader()?.stream_version(&stream)?;

    let events = arguments
        .map(|text| {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"");
            let json = format!(r#"{{"kind": "user.prompt", "data": {{"prompt": "{text}"}}}}"#);
            let metadata = Metadata { session_id: Some(session.clone()), ..Metadata::default() };
            Ok(NewEvent::new(RuntimeEvent::from_json(&json)?, metadata)?)
        })
        .collect::<Result<Vec<_>, Box<dyn std::error::Error>>>()?;

    // On disk when this returns: the version that we read is the condition.
    for receipt in log.append(&stream, ExpectedVersion::Exact(version), events.clone())? {
        println!("position {}, version {} of {stream}", receipt.position, receipt.stream_version);
    }
    // Under the same condition other events no longer fit: somebody, here ourselves, has written in between.
    match log.append(&stream, ExpectedVersion::Exact(version), events) {
        Err(AppendError::WrongExpectedVersion(conflict)) => println!("as it should be: {conflict}"),
        other => println!("unexpected: {other:?}"),
    }
    let written = log.reader()?.read_stream(&stream, version, Read::All)?;
    println!("{} events since version {version}", written.len());
    Ok(())
}
