use super::*;
use axum::http::HeaderValue;

fn with(host: &str, origin: Option<&str>) -> bool {
    let mut headers = HeaderMap::new();
    headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
    if let Some(origin) = origin {
        headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
    }
    check(&headers, &[], false).is_ok()
}

#[test]
fn programs_on_this_machine_come_in() {
    for host in ["127.0.0.1:7373", "localhost", "LOCALHOST:80", "[::1]:7373", "127.1.2.3"] {
        assert!(with(host, None), "{host}");
    }
}

#[test]
fn names_that_only_resolve_to_loopback_do_not() {
    for host in ["evil.example:7373", "localhost.evil.example", "", "10.0.0.1", "[::2]:1"] {
        assert!(!with(host, None), "{host}");
    }
}

#[test]
fn pages_of_other_origins_do_not() {
    assert!(with("127.0.0.1:7373", Some("http://127.0.0.1:7373")));
    for origin in
        ["http://evil.example", "null", "http://127.0.0.1:8000", "https://127.0.0.1:7373", ""]
    {
        assert!(!with("127.0.0.1:7373", Some(origin)), "{origin}");
    }
}
