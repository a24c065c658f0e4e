//! Who connects, by password or certificate, and which servers it trusts.

use std::error::Error as _;
use std::path::Path;

use async_nats::rustls::pki_types::pem::PemObject as _;
use async_nats::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use async_nats::rustls::{AlertDescription, CertificateError, ClientConfig, Error, RootCertStore};
use async_nats::{ConnectError, ConnectErrorKind, ConnectOptions};

use crate::address::Address;
use crate::error::JetStreamError;
use crate::log::Options;

const TRUST: &str = "NATS_CA names the certificates of who signs the servers', where the system does not know them";
const OWN: &str = "NATS_CERT and NATS_KEY name your own certificate and its key, signed by whom the servers trust";
const RENEW: &str = "have the certificate renewed, or set this machine's clock";
const NAME: &str = "name the server as its certificate does, or have that say this name too";
const SIGNER: &str = "a server needs a certificate of its own (CA:FALSE), and not that of a signer";
const PLAIN: &str = "the server does not speak TLS: with nats:// it is spoken to without";
const VERSION: &str = "TLS 1.3 is spoken here alone: have the server speak it";
const ASK: &str = "the server's own log says what it does not take";

/// Has a connection say who it is, and trust whom it is told to.
pub(crate) fn identify(
    mut connecting: ConnectOptions,
    address: &Address,
    options: &Options,
) -> Result<ConnectOptions, JetStreamError> {
    let Options { user, password, ca, certificate, key, .. } = options;
    let unfit = |file: &Path, problem: String| JetStreamError::Certificate {
        address: address.to_string(),
        file: file.to_owned(),
        problem,
    };
    if let (Some(user), Some(password)) = (user, password) {
        connecting = connecting.user_and_password(user.clone(), password.clone());
    }
    // The client reads the files at every connection, and tells of what is wrong with them without their names.
    if let Some(ca) = ca {
        trusted(ca).map_err(|problem| unfit(ca, problem))?;
        connecting = connecting.add_root_certificates(ca.clone());
    }
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            let own = certificates(certificate).map_err(|problem| unfit(certificate, problem))?;
            key_of(own, key).map_err(|problem| unfit(key, problem))?;
            connecting = connecting.add_client_certificate(certificate.clone(), key.clone());
        }
        (None, None) => {}
        (Some(file), None) => {
            return Err(unfit(file, "is your certificate, and no file with its key is named".to_owned()));
        }
        (None, Some(file)) => {
            return Err(unfit(file, "is a key, and no file with its certificate is named".to_owned()));
        }
    }
    if address.is_tls() {
        // What servers tell of others they tell before anything is encrypted: whoever is in between could name anybody.
        connecting = connecting.require_tls(true).ignore_discovered_servers();
    }
    Ok(connecting)
}

/// What a file says, which is read again and again.
fn read(file: &Path) -> Result<Vec<u8>, String> {
    let words = |error: std::io::Error| format!("cannot be read ({error})");
    if !std::fs::metadata(file).map_err(words)?.is_file() {
        return Err("is no file that can be read again and again".to_owned());
    }
    std::fs::read(file).map_err(words)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(file)?).collect();
    match found {
        Ok(found) if found.is_empty() => Err("has no certificate in it (PEM)".to_owned()),
        Ok(found) => Ok(found),
        Err(_) => Err("has a certificate in it that is damaged or cut off".to_owned()),
    }
}

fn trusted(file: &Path) -> Result<(), String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(file)? {
        store.add(certificate).map_err(|error| format!("has a certificate in it that cannot be used ({error})"))?;
    }
    Ok(())
}

fn key_of(own: Vec<CertificateDer<'static>>, file: &Path) -> Result<(), String> {
    let key = PrivateKeyDer::from_pem_slice(&read(file)?)
        .map_err(|_| "has no key in it that can be read (PEM, without a password)".to_owned())?;
    let fits = ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_client_auth_cert(own, key);
    fits.map(drop).map_err(|error| format!("is not the key of the certificate ({error})"))
}

/// Why no secure connection could be agreed on, and what can be done, where that is why there is none.
pub(crate) fn refusal(error: &ConnectError) -> Option<(String, &'static str)> {
    // The client tells of it as of any other input and output that failed.
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let found = error.downcast_ref::<Error>().or_else(|| inner.and_then(|inner| inner.downcast_ref::<Error>()));
        if let Some(found) = found {
            return Some((found.to_string(), next(found)));
        }
        cause = error.source();
    }
    (error.kind() == ConnectErrorKind::Tls).then(|| (error.to_string(), TRUST))
}

fn next(error: &Error) -> &'static str {
    use AlertDescription as Alert;
    use CertificateError as Certificate;
    match error {
        Error::InvalidCertificate(found) => match found {
            Certificate::Expired | Certificate::ExpiredContext { .. } => RENEW,
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => RENEW,
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => NAME,
            Certificate::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => SIGNER,
            _ => TRUST,
        },
        Error::AlertReceived(Alert::ProtocolVersion) => VERSION,
        Error::AlertReceived(Alert::CertificateExpired) => RENEW,
        Error::AlertReceived(
            Alert::CertificateRequired | Alert::BadCertificate | Alert::UnknownCA | Alert::CertificateUnknown,
        ) => OWN,
        Error::InvalidMessage(_) => PLAIN,
        _ => ASK,
    }
}
