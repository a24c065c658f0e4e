//! Who connects, by password or certificate, and which servers it trusts.

use std::error::Error as _;
use std::fs::File;

use async_nats::{ConnectError, ConnectErrorKind, ConnectOptions, rustls};

use crate::address::Address;
use crate::error::JetStreamError;
use crate::log::Options;

/// Has a connection say who it is, and trust whom it is told to.
pub(crate) fn identify(
    mut connecting: ConnectOptions,
    address: &Address,
    options: &Options,
) -> Result<ConnectOptions, JetStreamError> {
    let insecure = |detail: String| JetStreamError::Insecure { address: address.to_string(), detail };
    let Options { user, password, ca, certificate, key, .. } = options;
    // The client tells of a file that is not there without its name.
    for file in [ca, certificate, key].into_iter().flatten() {
        File::open(file).map_err(|error| insecure(format!("{}: {error}", file.display())))?;
    }
    if let (Some(user), Some(password)) = (user, password) {
        connecting = connecting.user_and_password(user.clone(), password.clone());
    }
    if let Some(ca) = ca {
        connecting = connecting.add_root_certificates(ca.clone());
    }
    match (certificate, key) {
        (Some(certificate), Some(key)) => {
            connecting = connecting.add_client_certificate(certificate.clone(), key.clone());
        }
        (None, None) => {}
        (Some(_), None) => return Err(insecure("your certificate is named, and its key is not".to_owned())),
        (None, Some(_)) => return Err(insecure("your key is named, and its certificate is not".to_owned())),
    }
    Ok(connecting.require_tls(address.is_tls()))
}

/// Why no secure connection could be agreed on, where that is why there is none: the client tells of that as of any other input and
/// output that failed.
pub(crate) fn refusal(error: &ConnectError) -> Option<String> {
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if error.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return Some(error.to_string());
        }
        cause = error.source();
    }
    (error.kind() == ConnectErrorKind::Tls).then(|| error.to_string())
}
