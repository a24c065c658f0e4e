//! Where a ledger on NATS is: `nats://HOST:PORT/NAME`.

use std::fmt;
use std::str::FromStr;

/// The port of NATS, where none is named.
const PORT: u16 = 4222;
/// Replicas of a stream, where nothing else is said.
const REPLICAS: usize = 3;
/// Characters of a name, at the most.
const NAME_CHARS_MAX: usize = 64;

/// The address of a ledger on NATS: `nats://HOST:PORT[,HOST:PORT…]/NAME[?replicas=N][&domain=DOMAIN]`.
///
/// With `tls://` nothing is said to a server but by TLS; with `nats://` as the server wants it.
/// The domain is JetStream's: behind a leaf node, that of the servers that keep the stream.
/// It has no password in it, since addresses are printed: who connects is said by `NATS_USER` and `NATS_PASSWORD`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    is_tls: bool,
    servers: Vec<String>,
    name: String,
    replicas: usize,
    domain: Option<String>,
}

/// A text is no address of a ledger on NATS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{address} is no address of a ledger on NATS: {problem}; it is nats://HOST:PORT/NAME, or tls:// likewise")]
pub struct AddressError {
    address: String,
    problem: &'static str,
}

impl Address {
    /// Whether nothing may be said but by TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// The servers, `HOST:PORT` each. One is enough to find the others with `nats://`; with `tls://` those alone are spoken to that are
    /// named, since who is found is named before anything is encrypted.
    pub fn servers(&self) -> &[String] {
        &self.servers
    }

    /// The ledger's name: that of its stream, and the first part of its subjects.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Replicas that the stream has.
    pub fn replicas(&self) -> usize {
        self.replicas
    }

    /// The domain of JetStream that the stream is in, where it is not that of the servers.
    pub fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }

    /// A name for the folder of this machine's copy: the same for the same servers in any order.
    pub fn folder_name(&self) -> String {
        let mut servers = self.servers.clone();
        servers.sort();
        let domain = self.domain.as_ref().map(|domain| format!("?{domain}")).unwrap_or_default();
        let digest = blake3::hash((servers.join(",") + &domain).as_bytes()).to_hex();
        format!("{}-{}", self.name, &digest[..16])
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, behind) = text.split_once("://").unwrap_or(("", text));
        let is_tls = scheme.eq_ignore_ascii_case("tls");
        // What may be a password is not told again.
        let way = if is_tls { "tls" } else { "nats" };
        let shown = text.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, rest)| format!("{way}://…@{rest}"));
        let refused = |problem| AddressError { address: shown.clone(), problem };
        if !is_tls && !scheme.eq_ignore_ascii_case("nats") {
            return Err(refused("it does not begin with nats:// or tls://"));
        }
        let (servers, rest) = behind.split_once('/').ok_or_else(|| refused("the ledger's name is missing"))?;
        if servers.contains('@') {
            return Err(refused("a password does not belong into it: set NATS_USER and NATS_PASSWORD"));
        }
        let (name, query) = rest.split_once('?').unwrap_or((rest, ""));
        let is_name = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
        if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(is_name) {
            return Err(refused("the ledger's name is 1 to 64 letters, digits, - and _"));
        }
        let servers: Vec<String> = servers
            .split(',')
            .map(server)
            .collect::<Option<_>>()
            .ok_or_else(|| refused("a server is a host and a port"))?;
        let (mut replicas, mut domain) = (None, None);
        for said in query.split('&').filter(|said| !said.is_empty()) {
            let number = |text: &str| text.parse().ok().filter(|number| [1, 3, 5].contains(number));
            match said.split_once('=') {
                Some(("replicas", text)) if replicas.is_none() => {
                    replicas = Some(number(text).ok_or_else(|| refused("replicas are 1, 3 or 5"))?);
                }
                Some(("domain", text)) if domain.is_none() && !text.is_empty() && text.chars().all(is_name) => {
                    domain = Some(text.to_owned());
                }
                _ => {
                    return Err(refused("behind `?` can stand replicas=1, 3 or 5, and domain=NAME, with & in between"));
                }
            }
        }
        Ok(Self { is_tls, servers, name: name.to_owned(), replicas: replicas.unwrap_or(REPLICAS), domain })
    }
}

/// A server with its port.
fn server(text: &str) -> Option<String> {
    let is_host = |host: &str| {
        let is_plain = host.chars().all(|character| character.is_ascii_alphanumeric() || "-._".contains(character));
        let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        !host.is_empty() && (is_plain || v6.is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok()))
    };
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().ok().filter(|port| *port > 0)?),
        _ => (text, PORT),
    };
    is_host(host).then(|| format!("{host}:{port}"))
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "tls" } else { "nats" };
        write!(f, "{scheme}://{}/{}", self.servers.join(","), self.name)?;
        let replicas = (self.replicas != REPLICAS).then(|| format!("replicas={}", self.replicas));
        let domain = self.domain.as_ref().map(|domain| format!("domain={domain}"));
        for (said, before) in replicas.into_iter().chain(domain).zip(["?", "&"]) {
            write!(f, "{before}{said}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

    use super::*;

    #[test]
    fn an_address_is_read_and_written_and_a_password_in_it_is_refused_and_not_told() {
        for (text, shown, servers, replicas) in [
            ("nats://a:4222/team", "nats://a:4222/team", 1, 3),
            ("nats://a/team", "nats://a:4222/team", 1, 3),
            ("nats://a:1,b:2,[::1]:3/t-1_x?replicas=1", "nats://a:1,b:2,[::1]:3/t-1_x?replicas=1", 3, 1),
            ("nats://a/t?domain=hub", "nats://a:4222/t?domain=hub", 1, 3),
            ("NATS://a/t", "nats://a:4222/t", 1, 3),
            ("tls://a,b:5/t", "tls://a:4222,b:5/t", 2, 3),
            ("nats://a/t?domain=hub&replicas=1", "nats://a:4222/t?replicas=1&domain=hub", 1, 1),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.to_string().as_str(), address.servers().len()), (shown, servers));
            assert_eq!((address.replicas(), shown.parse()), (replicas, Ok(address)));
        }
        for text in [
            "nats://a:4222",
            "nats://a:4222/",
            "nats://a:4222/a.b",
            "nats://a:4222/a b",
            "nats:///team",
            "nats://a:0/t",
            "nats://a:99999/t",
            "nats://a,/t",
            "nats://a/t?replicas=2",
            "nats://a/t?x=1",
            "nats://a/t?domain=",
            "nats://a/t?domain=a.b",
            "nats://a/t?replicas=1&replicas=3",
            "nats://a/t?replicas=1?domain=a",
            "nats:a/t",
            "tls:a/t",
            "ws://a/t",
            "a/t",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
        for text in ["nats://ada:secret@a:4222/team", "tls://ada:secret@a/team"] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("NATS_PASSWORD") && !error.contains("secret"), "{error}");
        }
        let error = "ada:secret@nats://a/team".parse::<Address>().unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn a_copy_is_where_it_was_whatever_the_order_of_the_servers_and_the_way_to_them() {
        let folder = |text: &str| text.parse::<Address>().unwrap().folder_name();
        assert_eq!(folder("nats://a:1,b:2/t"), folder("nats://b:2,a:1/t"));
        assert_eq!(folder("nats://a:1/t"), folder("tls://a:1/t"));
        let others = ["nats://a:1/t", "nats://a:2/t", "nats://a:1/t?domain=hub"].map(folder);
        assert!(others.iter().collect::<std::collections::HashSet<_>>().len() == 3);
    }
}
