//! The door: which host is meant, which page asks, who calls, and what they may.
//!
//! A loopback address is reachable by every page that a browser on this machine has open, and any
//! address by a page whose name was made to resolve to it. A page cannot forge `Host` or `Origin`:
//! a name that only resolves to the node (DNS rebinding) shows in the first, a page from elsewhere
//! in the second. There are no cookies, so no page can borrow somebody's rights.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::access::{Caller, Denied, Role};
use super::{Edge, Peer, Problem};

#[cfg(test)]
mod tests;

/// What anybody may ask: whether the node is up, and the page, which holds nothing of the node.
const OPEN: [&str; 3] = ["/", "/healthz", "/readyz"];

/// Below it lies the page.
const PAGE: &str = "/assets/";

/// What is answered with every response. The page loads nothing from elsewhere, runs nothing that
/// is not in its files, and stands in no frame.
const HEADERS: [(header::HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
         connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (header::HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Lets through who may.
pub(super) async fn watch(State(edge): State<Edge>, mut request: Request, next: Next) -> Response {
    let mut response = match admit(&edge, &mut request).await {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}

async fn admit(edge: &Edge, request: &mut Request) -> Result<(), Problem> {
    check(request.headers(), edge.hosts(), edge.is_tls())?;
    let path = request.uri().path();
    if OPEN.contains(&path) || path.starts_with(PAGE) {
        return Ok(());
    }
    if request.uri().query().is_some_and(|query| query.contains("token=")) {
        return Err(Problem::bad_request(
            "a token in an address ends up in logs; send it as `Authorization: Bearer TOKEN`",
        ));
    }
    let Peer(from) = request.extensions().get().copied().unwrap_or(Peer(IpAddr::from([0; 4])));
    let authorization = request.headers().get(header::AUTHORIZATION);
    let authorization = match authorization.map(HeaderValue::to_str) {
        None => None,
        Some(Ok(text)) => Some(text),
        Some(Err(_)) => Some(""),
    };
    let caller = edge.access().caller(from, authorization).await.map_err(denied)?;
    let wanted = match *request.method() {
        Method::GET | Method::HEAD | Method::OPTIONS if has_payloads(path) => Role::Admin,
        Method::GET | Method::HEAD | Method::OPTIONS => Role::Viewer,
        _ => Role::Operator,
    };
    if caller.role < wanted {
        return Err(too_little(&caller, wanted));
    }
    request.extensions_mut().insert(caller);
    Ok(())
}

/// Whether a read there answers what applications have written. The debug API hides it from those
/// who may not see it, and is read by all.
fn has_payloads(path: &str) -> bool {
    let below = |prefix: &str| path.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty());
    path == "/api/v1/events"
        || below("/api/v1/streams/")
        || below("/api/v1/dead-letters/")
        || below("/api/v1/sagas/")
        // An actor's state, and nothing else that is known of it.
        || path.starts_with("/debug/v1/actors/") && path.ends_with("/state")
}

pub(crate) fn too_little(caller: &Caller, wanted: Role) -> Problem {
    let who = match &caller.name {
        Some(name) => format!("{name} is {}", caller.role.as_str()),
        None => format!("without a token one is {} here", caller.role.as_str()),
    };
    let cure = match caller.name {
        Some(_) => "ask for another token",
        None if wanted == Role::Admin => "send an admin's token",
        None => "start the node with --operator or in development, or send a token",
    };
    let wanted = wanted.as_str();
    Problem::new(StatusCode::FORBIDDEN, format!("{who}, and this wants {wanted}: {cure}"))
}

fn denied(denied: Denied) -> Problem {
    let wants = |detail: &str| {
        Problem::new(StatusCode::UNAUTHORIZED, detail)
            .header(header::WWW_AUTHENTICATE, "Bearer realm=\"mister-smith\"")
    };
    match denied {
        Denied::Missing => {
            wants("send a token as `Authorization: Bearer TOKEN`; see `smith token`")
        }
        Denied::Wrong => wants("the token is wrong"),
        Denied::TooMany(seconds) => {
            Problem::too_many(format!("too many wrong tokens; try again in {seconds} s"))
                .retry_after(u32::try_from(seconds).unwrap_or(u32::MAX))
        }
    }
}

fn check(headers: &HeaderMap, hosts: &[String], tls: bool) -> Result<(), Problem> {
    if headers.get_all(header::HOST).iter().count() > 1 {
        return Err(Problem::bad_request("there are two hosts in the request; send one"));
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    if !is_loopback_name(host) && !hosts.iter().any(|one| one.eq_ignore_ascii_case(name_of(host))) {
        let known = match hosts.is_empty() {
            true => "call it by 127.0.0.1".to_owned(),
            false => format!("call it by {}, or name it with --host", hosts.join(", ")),
        };
        return Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            format!("this node does not answer to {host:?}; {known}"),
        ));
    }
    if !headers.contains_key(header::ORIGIN) {
        return Ok(());
    }
    let origin = text(header::ORIGIN).unwrap_or_default();
    let scheme = if tls { "https://" } else { "http://" };
    if origin.strip_prefix(scheme).is_some_and(|origin| origin.eq_ignore_ascii_case(host)) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        format!("requests of pages from {origin:?} are not taken"),
    ))
}

/// A host without its port.
fn name_of(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    }
}

/// `localhost`, `127.…` or `[::1]`, with or without a port.
fn is_loopback_name(host: &str) -> bool {
    let name = name_of(host);
    let is_ip = name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    // An IPv6 address without brackets would be cut at its last colon.
    (is_ip && (host.starts_with('[') || !name.contains(':')))
        || name.eq_ignore_ascii_case("localhost")
}
