//! Who is let in: the host that was asked for, the token, the origin of what acts, and the headers of every answer.
//!
//! Invariants: nothing of the ledger is told without the token, whatever the address. Nothing acts without a word that only our
//! own pages know. A name that is not ours (a foreign site whose name leads here) is refused before anything else is looked at.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{FromRequest, Request, State};
use axum::http::header::{self, HeaderMap, HeaderValue};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use serde::de::DeserializeOwned;

use crate::failure::Failure;
use crate::pages;
use crate::server::App;

/// Characters of a token, at the least.
const TOKEN_CHARS_MIN: usize = 16;
/// Random bytes of a token that is made here.
const TOKEN_BYTES: usize = 24;
/// Bytes of a form, at the most.
const FORM_BYTES_MAX: usize = 64 << 10;
/// No script but ours, nothing from elsewhere, in nobody's frame.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                              form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What lets somebody in.
#[derive(Clone)]
pub struct Token(String);

/// A text is no token.
#[derive(Debug, thiserror::Error)]
#[error("a token has at least {TOKEN_CHARS_MIN} letters, digits, - or _; leave it out, and one is made")]
pub struct TokenError;

impl Token {
    /// A random one.
    ///
    /// # Errors
    /// [`getrandom::Error`] where the system has no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; TOKEN_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// One of somebody's own.
    ///
    /// # Errors
    /// [`TokenError`] where it is short, or does not fit into an address.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let fits = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
        match text.len() >= TOKEN_CHARS_MIN && text.chars().all(fits) {
            true => Ok(Self(text.to_owned())),
            false => Err(TokenError),
        }
    }

    /// Its text, which is secret.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The guard of one server.
pub(crate) struct Guard {
    token: Token,
    cookie_name: String,
    /// What the browser keeps instead of the token.
    cookie: String,
    /// What our own pages say when they act.
    form_word: String,
    /// The names under which we are asked.
    hosts: Vec<String>,
}

impl Guard {
    /// The guard of a server at an address, which has these names too.
    pub(crate) fn new(token: Token, address: SocketAddr, names: &[String]) -> Self {
        let port = address.port();
        let derived = |purpose: &str| {
            let key = blake3::derive_key(purpose, token.secret().as_bytes());
            key.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let mut hosts = vec![address.to_string()];
        for name in names.iter().map(String::as_str).chain(["localhost", "127.0.0.1", "[::1]"]) {
            hosts.push(name.to_ascii_lowercase());
            hosts.push(format!("{}:{port}", name.to_ascii_lowercase()));
        }
        Self {
            // Cookies are of a host, whatever the port.
            cookie_name: format!("runledger_{port}"),
            cookie: derived("runledger web cookie 1"),
            form_word: derived("runledger web form 1"),
            token,
            hosts,
        }
    }

    /// What a form of ours has to say.
    pub(crate) fn form_word(&self) -> &str {
        &self.form_word
    }

    /// Whether a request may act: a program that sends the token, or a page of ours that says its word beside the cookie.
    pub(crate) fn may_act(&self, headers: &HeaderMap, word: Option<&str>) -> bool {
        self.has_bearer(headers) || word.is_some_and(|word| is_equal(word, &self.form_word))
    }

    fn is_ours(&self, host: &str) -> bool {
        self.hosts.iter().any(|ours| ours.eq_ignore_ascii_case(host))
    }

    fn has_bearer(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.split_once(' '));
        given.is_some_and(|(scheme, token)| {
            scheme.eq_ignore_ascii_case("bearer") && is_equal(token.trim(), self.token.secret())
        })
    }

    fn has_cookie(&self, headers: &HeaderMap) -> bool {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.any(|(name, value)| name == self.cookie_name && is_equal(value, &self.cookie))
    }

    /// Why a request is not let in; `None` where it is.
    fn refusal(&self, request: &Request) -> Option<Failure> {
        let headers = request.headers();
        if headers.get_all(header::HOST).iter().count() > 1 {
            return Some(Failure::bad_request("more than one host is named", "name the one that is asked"));
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = host.or_else(|| request.uri().authority().map(|authority| authority.as_str()));
        if !host.is_some_and(|host| self.is_ours(host)) {
            let error = format!("this server is not {}", host.unwrap_or("without a name"));
            let next = "open the address that `runledger serve` printed; --host NAME adds a name";
            return Some(Failure::new(StatusCode::MISDIRECTED_REQUEST, error, next));
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD)
            && let Some(origin) = foreign_origin(headers, |host| self.is_ours(host))
        {
            let error = format!("{origin} may not act here");
            return Some(Failure::new(StatusCode::FORBIDDEN, error, "act on a page of this server itself"));
        }
        let path = request.uri().path();
        let is_open = path == "/healthz" || path.starts_with("/assets/");
        if is_open || self.has_bearer(headers) || self.has_cookie(headers) {
            return None;
        }
        let next = "open the address that `runledger serve` printed, with its token; programs send `Authorization: Bearer TOKEN`";
        Some(Failure::new(StatusCode::UNAUTHORIZED, "the token is missing, or is another server's", next))
    }

    /// Where somebody who brought the token goes on without it, with a cookie instead.
    fn admit(&self, uri: &Uri) -> Option<Response> {
        let query = uri.query()?;
        let (mut rest, mut token) = (Vec::new(), None);
        for pair in query.split('&') {
            match pair.split_once('=') {
                Some(("token", given)) => token = Some(given),
                _ => rest.push(pair),
            }
        }
        token.filter(|token| is_equal(token, self.token.secret()))?;
        let path = own_path(uri);
        let to = if rest.is_empty() { path } else { format!("{path}?{}", rest.join("&")) };
        let cookie = format!("{}={}; Path=/; HttpOnly; SameSite=Strict", self.cookie_name, self.cookie);
        let cookie = HeaderValue::from_str(&cookie).ok()?;
        Some(([(header::SET_COOKIE, cookie)], Redirect::to(&to)).into_response())
    }
}

/// The path of an address of ours: one of two strokes would be another host's.
pub(crate) fn own_path(uri: &Uri) -> String {
    format!("/{}", uri.path().trim_start_matches(['/', '\\']))
}

/// Whether two secrets are equal, in a time that does not tell how far.
fn is_equal(one: &str, other: &str) -> bool {
    blake3::hash(one.as_bytes()) == blake3::hash(other.as_bytes())
}

/// The origin that asks for an action, where it is not ours.
fn foreign_origin(headers: &HeaderMap, is_ours: impl Fn(&str) -> bool) -> Option<String> {
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or("an origin that cannot be read");
        let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        return (!host.is_some_and(is_ours)).then(|| origin.to_owned());
    }
    let site = headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
    site.filter(|site| !matches!(*site, "same-origin" | "none")).map(|site| format!("a {site} page"))
}

/// Stands before every route.
pub(crate) async fn watch(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/api/");
    let accepts = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let is_for_person = !is_api && accepts.is_some_and(|accept| accept.to_ascii_lowercase().contains("text/html"));
    let refusal = app.guard.refusal(&request);
    let is_let_in = refusal.is_none();
    let is_unknown = refusal.as_ref().is_some_and(|failure| failure.status == StatusCode::UNAUTHORIZED);
    let brings_token = is_unknown || request.uri().query().is_some_and(|query| query.contains("token="));
    let is_get = request.method() == Method::GET;
    let asked = is_unknown.then(|| request.uri().clone());
    let admitted = match &refusal {
        Some(_) if !is_unknown => None,
        _ if is_get && brings_token && !is_api => app.guard.admit(request.uri()),
        _ => None,
    };
    let mut response = match (admitted, refusal) {
        (Some(response), _) => response,
        (None, Some(failure)) => failure.into_response(),
        (None, None) => next.run(request).await,
    };
    // What is a page already says itself what is wrong.
    let is_page =
        response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if response.status().is_client_error() && !is_page && response.extensions().get::<Failure>().is_none() {
        response = Failure::of_refused(response).await.into_response();
    }
    if is_page
        && !is_for_person
        && let Some(failure) = response.extensions_mut().remove::<Failure>()
    {
        response = failure.into_response();
    } else if !is_page
        && is_for_person
        && let Some(failure) = response.extensions_mut().remove::<Failure>()
    {
        let page = match is_let_in {
            true => pages::failure::page(&app, &failure),
            // Whoever is not let in is told nothing of the ledger, not even where it is.
            false => pages::failure::bare(&failure, asked.as_ref().filter(|_| is_get)),
        };
        response = (failure.status, page).into_response();
    }
    if !is_let_in {
        // Who only asks at the door does not stay in it.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    app.counts.count(response.status());
    let headers = response.headers_mut();
    let mut set = |name: &'static str, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
    set("content-security-policy", CONTENT_POLICY);
    set("x-content-type-options", "nosniff");
    // The address may have the token, so others are not told it. With `no-referrer` browsers would say `Origin: null` of our
    // own forms.
    set("referrer-policy", "same-origin");
    set("cross-origin-opener-policy", "same-origin");
    set("cross-origin-resource-policy", "same-origin");
    set("x-frame-options", "DENY");
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

/// A form of ours: refused where it does not say the word that only our own pages know.
pub(crate) struct OwnForm<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Arc<App>> for OwnForm<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Failure> {
        let headers = request.headers().clone();
        let unfit =
            |error: String| Failure::bad_request(format!("the form does not fit: {error}"), "open the page anew");
        let body = axum::body::to_bytes(request.into_body(), FORM_BYTES_MAX)
            .await
            .map_err(|error| unfit(error.to_string()))?;
        let pairs: Vec<(String, String)> =
            serde_urlencoded::from_bytes(&body).map_err(|error| unfit(error.to_string()))?;
        let word = pairs.iter().find(|(name, _)| name == "form_word").map(|(_, word)| word.as_str());
        if !app.guard.may_act(&headers, word) {
            let next = "open the page anew, and act there";
            return Err(Failure::new(StatusCode::FORBIDDEN, "this form is not one of this server's pages", next));
        }
        serde_urlencoded::from_bytes(&body).map(Self).map_err(|error| unfit(error.to_string()))
    }
}
