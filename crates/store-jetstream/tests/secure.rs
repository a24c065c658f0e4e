//! Servers that are spoken to by TLS: whom the program trusts, who it says that it is, and what it says where the two do not agree.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener};
use std::time::Duration;

use runledger_events::{Metadata, RuntimeEvent, StreamName, StreamVersion};
use runledger_store::{EventLog as _, ExpectedVersion, NewEvent};
use runledger_store_jetstream::{Address, JetStreamError, JetStreamLog, Options};
use runledger_testkit::{NatsServers, new_address};
use tempfile::TempDir;

/// Who is signed by the servers' signer, and knows it.
fn known(servers: &NatsServers) -> Options {
    let file = |name: &str| Some(servers.folder().join(name));
    let open = Duration::from_secs(20);
    let (ca, certificate, key) = (file("ca.pem"), file("client.pem"), file("client-key.pem"));
    Options { open, ca, certificate, key, ..Options::default() }
}

/// Opens a ledger with a new copy.
fn open(address: &str, options: &Options) -> Result<(TempDir, JetStreamLog), JetStreamError> {
    let folder = tempfile::tempdir().unwrap();
    let address: Address = address.parse().unwrap();
    JetStreamLog::open(&address, folder.path(), options).map(|log| (folder, log))
}

fn event(id: &str) -> NewEvent {
    let json = format!(r#"{{"id":"{id}","timestamp":1,"kind":"user.prompt","data":{{"prompt":"{id}"}}}}"#);
    NewEvent::new(RuntimeEvent::from_json(&json).unwrap(), Metadata::default()).unwrap()
}

#[test]
fn a_ledger_is_written_and_copied_by_tls_whichever_way_it_is_addressed() {
    let Some(servers) = NatsServers::start_secure() else { return };
    let plain = new_address(&servers, 1);
    let secure = plain.replace("nats://", "tls://");
    let options = known(&servers);
    let (_one, log) = open(&secure, &options).unwrap();
    let session = StreamName::new("session/s").unwrap();
    log.append(&session, ExpectedVersion::NoStream, vec![event("one")]).unwrap();
    // The servers ask for it themselves.
    let (_other, other) = open(&plain, &options).unwrap();
    other.catch_up(Duration::from_secs(20)).unwrap();
    let head = |log: &JetStreamLog| log.reader().unwrap().head().unwrap();
    assert_eq!(head(&other), head(&log));
    // It is connected to again in the same way.
    servers.kill(0);
    servers.restart(0);
    log.append(&session, ExpectedVersion::Exact(StreamVersion(1)), vec![event("two")]).unwrap();
    other.catch_up(Duration::from_secs(20)).unwrap();
    assert_eq!(head(&other), head(&log));
}

#[test]
fn who_does_not_trust_the_server_or_is_not_trusted_is_told_which_files_say_so() {
    let Some(servers) = NatsServers::start_secure() else { return };
    let address = new_address(&servers, 1).replace("nats://", "tls://");
    let options = known(&servers);
    let refused = |address: &str, options: Options| match open(address, &options) {
        Err(error @ JetStreamError::Insecure { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    for (options, words) in [
        (Options { ca: None, ..options.clone() }, "UnknownIssuer"),
        (Options { ca: options.certificate.clone(), ..options.clone() }, "UnknownIssuer"),
        (Options { certificate: None, key: None, ..options.clone() }, "CertificateRequired"),
        (Options { key: None, ..options.clone() }, "its key is not"),
        (Options { certificate: None, ..options.clone() }, "its certificate is not"),
        (Options { ca: Some(servers.folder().join("none.pem")), ..options.clone() }, "none.pem"),
        (Options { key: options.ca.clone(), ..options.clone() }, "key"),
    ] {
        let refused = refused(&address, options);
        assert!(refused.contains(words) && refused.contains("NATS_CA"), "{words}: {refused}");
    }
    // The certificate is another name's.
    let elsewhere = address.replace("127.0.0.1", "localhost");
    let refused = refused(&elsewhere, options);
    assert!(refused.contains("not valid for name \"localhost\""), "{refused}");
}

#[test]
fn with_an_address_of_tls_a_server_without_it_is_told_no_password() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        client.write_all(b"INFO {\"server_id\":\"plain\",\"version\":\"2.14.0\",\"max_payload\":1048576}\r\n").unwrap();
        let mut heard = vec![0; 4096];
        let length = client.read(&mut heard).unwrap();
        heard.truncate(length);
        client.write_all(b"-ERR 'Unknown Protocol Operation'\r\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        client.read_to_end(&mut heard).unwrap();
        heard
    });
    let (user, password) = (Some("ada".to_owned()), Some("lovelace".to_owned()));
    let options = Options { user, password, ..Options::default() };
    let refused = open(&format!("tls://127.0.0.1:{port}/team"), &options).unwrap_err();
    assert!(matches!(refused, JetStreamError::Insecure { .. }), "{refused:?}");
    let heard = heard.join().unwrap();
    // What begins a handshake, and nothing behind it.
    assert!(heard[0] == 0x16 && !String::from_utf8_lossy(&heard).contains("lovelace"), "{heard:?}");
}
