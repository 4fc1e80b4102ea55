//! Keeps web pages of other origins away from a node on loopback.
//!
//! A loopback address is reachable by every page that a browser on this machine has open. A page
//! cannot forge `Host` or `Origin`: a name that only resolves to loopback (DNS rebinding) shows in
//! the first, a page from elsewhere in the second.

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Problem;

#[cfg(test)]
mod tests;

/// Lets through what comes from this machine and from no other page.
pub(super) async fn same_origin(request: Request, next: Next) -> Response {
    match check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    if !is_loopback_name(host) {
        return Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            format!("this node answers to localhost, not to {host:?}; call it by 127.0.0.1"),
        ));
    }
    if !headers.contains_key(header::ORIGIN) {
        return Ok(());
    }
    let origin = text(header::ORIGIN).unwrap_or_default();
    if origin.strip_prefix("http://").is_some_and(|origin| origin.eq_ignore_ascii_case(host)) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        format!("requests of pages from {origin:?} are not taken"),
    ))
}

/// `localhost`, `127.…` or `[::1]`, with or without a port.
fn is_loopback_name(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => return rest.split(']').next().is_some_and(is_loopback_ip),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || is_loopback_ip(name)
}

fn is_loopback_ip(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}
