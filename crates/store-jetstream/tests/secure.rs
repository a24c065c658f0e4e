//! Servers that are spoken to by TLS: whom the program trusts, who it says that it is, and what it says where the two do not agree.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use runledger_events::{Metadata, RuntimeEvent, StreamName, StreamVersion};
use runledger_store::{EventLog as _, ExpectedVersion, NewEvent};
use runledger_store_jetstream::{Address, JetStreamError, JetStreamLog, Options};
use runledger_testkit::{NatsServers, new_address, write_certificates};
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
fn who_does_not_trust_the_server_or_is_not_trusted_is_told_what_can_be_done() {
    let Some(servers) = NatsServers::start_secure() else { return };
    let address = new_address(&servers, 1).replace("nats://", "tls://");
    let options = known(&servers);
    let refused = |address: &str, options: Options| match open(address, &options) {
        Err(error @ JetStreamError::Insecure { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    for (options, cause, next) in [
        (Options { ca: None, ..options.clone() }, "UnknownIssuer", "NATS_CA"),
        (Options { ca: options.certificate.clone(), ..options.clone() }, "UnknownIssuer", "NATS_CA"),
        (Options { certificate: None, key: None, ..options.clone() }, "CertificateRequired", "NATS_CERT"),
    ] {
        let refused = refused(&address, options);
        assert!(refused.contains(cause) && refused.contains(next), "{refused}");
    }
    // The certificate is another name's.
    let refused = refused(&address.replace("127.0.0.1", "localhost"), options);
    assert!(refused.contains("not valid for name \"localhost\"") && refused.contains("name the server"), "{refused}");
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_what_is_wrong_with_it_and_nobody_waits_for_one() {
    // Nobody is there, and nobody is asked.
    let address: Address = "tls://127.0.0.1:1/team".parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    write_certificates(folder.path());
    let file = |name: &str| Some(folder.path().join(name));
    let whole = std::fs::read_to_string(folder.path().join("ca.pem")).unwrap();
    std::fs::write(folder.path().join("cut.pem"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(folder.path().join("empty.pem"), "").unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(folder.path().join("pipe")).status();
    assert!(pipe.unwrap().success());
    let fits = || Options { certificate: file("client.pem"), key: file("client-key.pem"), ..Options::default() };
    for (options, named, words) in [
        (Options { ca: file("none.pem"), ..fits() }, "none.pem", "cannot be read"),
        (Options { ca: file(""), ..fits() }, "", "is no file"),
        (Options { ca: file("pipe"), ..fits() }, "pipe", "is no file"),
        (Options { ca: file("empty.pem"), ..fits() }, "empty.pem", "has no certificate"),
        (Options { ca: file("client-key.pem"), ..fits() }, "client-key.pem", "has no certificate"),
        (Options { ca: file("cut.pem"), ..fits() }, "cut.pem", "cut off"),
        (Options { certificate: file("client-key.pem"), ..fits() }, "client-key.pem", "has no certificate"),
        (Options { key: file("ca.pem"), ..fits() }, "ca.pem", "has no key"),
        (Options { key: file("server-key.pem"), ..fits() }, "server-key.pem", "is not the key"),
        (Options { key: None, ..fits() }, "client.pem", "no file with its key"),
        (Options { certificate: None, ..fits() }, "client-key.pem", "no file with its certificate"),
    ] {
        let refused = JetStreamLog::open(&address, folder.path(), &options).unwrap_err();
        assert!(matches!(refused, JetStreamError::Certificate { .. }), "{refused:?}");
        let refused = refused.to_string();
        assert!(refused.contains(&format!("{named} ")) && refused.contains(words), "{refused}");
    }
}

/// Whoever is between a machine and its servers can change what they say before anything is encrypted, and name servers of their own.
#[test]
fn with_an_address_of_tls_who_is_named_by_others_is_not_spoken_to() {
    let Some(servers) = NatsServers::start_secure() else { return };
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    other.set_nonblocking(true).unwrap();
    let between = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tls://127.0.0.1:{}/team?replicas=1", between.local_addr().unwrap().port());
    let (named, behind) = (other.local_addr().unwrap(), servers.port(0));
    let (cut, cuts) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for client in between.incoming() {
            let (mut client, mut server) = (client.unwrap(), TcpStream::connect(("127.0.0.1", behind)).unwrap());
            let mut info = Vec::new();
            while info.last() != Some(&b'\n') {
                let mut byte = [0];
                server.read_exact(&mut byte).unwrap();
                info.push(byte[0]);
            }
            let info = String::from_utf8(info).unwrap();
            let info = info.replacen('{', &format!(r#"{{"connect_urls":["{named}"],"#), 1);
            client.write_all(info.as_bytes()).unwrap();
            cut.send([client.try_clone().unwrap(), server.try_clone().unwrap()]).unwrap();
            let (mut to, mut from) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            std::thread::spawn(move || std::io::copy(&mut server, &mut client));
        }
    });
    let (_folder, log) = open(&address, &known(&servers)).unwrap();
    let session = StreamName::new("session/s").unwrap();
    for number in 0..3_u64 {
        let expected = ExpectedVersion::Exact(StreamVersion(number));
        log.append(&session, expected, vec![event(&number.to_string())]).unwrap();
        for way in cuts.try_iter().flatten() {
            let _ = way.shutdown(Shutdown::Both);
        }
    }
    assert_eq!(other.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn who_changed_their_certificates_is_not_gone_back_to_and_it_is_said_why() {
    let Some(servers) = NatsServers::start_secure() else { return };
    let address = new_address(&servers, 1).replace("nats://", "tls://");
    // Ours stay as they are.
    let ours = tempfile::tempdir().unwrap();
    let mut options = Options { patience: Duration::from_secs(2), ..known(&servers) };
    for file in [&mut options.ca, &mut options.certificate, &mut options.key].into_iter().flatten() {
        let copied = ours.path().join(file.file_name().unwrap());
        std::fs::copy(&*file, &copied).unwrap();
        *file = copied;
    }
    let (_folder, log) = open(&address, &options).unwrap();
    let session = StreamName::new("session/s").unwrap();
    log.append(&session, ExpectedVersion::NoStream, vec![event("one")]).unwrap();
    servers.kill(0);
    write_certificates(servers.folder());
    servers.restart(0);
    let refused = log.append(&session, ExpectedVersion::Exact(StreamVersion(1)), vec![event("two")]).unwrap_err();
    assert!(refused.to_string().contains("invalid peer certificate"), "{refused}");
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
    let JetStreamError::Insecure { next, .. } = refused else { panic!("{refused:?}") };
    assert!(next.contains("does not speak TLS"), "{next}");
    let heard = heard.join().unwrap();
    // What begins a handshake, and nothing behind it.
    assert!(heard[0] == 0x16 && !String::from_utf8_lossy(&heard).contains("lovelace"), "{heard:?}");
}
