//! What must not get in: each a request that somebody would try.

use std::net::SocketAddr;
use std::time::Duration;

use mister_smith::http::Limits;
use mister_smith::http::access::{Role, Token};
use mister_smith::system::{AccessOptions, SystemError};
use mister_smith::{SystemBuilder, SystemCore};
use mister_smith_testkit::{Client, Reply, eventually};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::node::{DEADLINE, Node, event};

const KILL: &str = "/debug/v1/actors/domain/projections/streams/kill";

fn token(role: Role, name: &str) -> (String, Token) {
    Token::create(role, name, std::array::from_fn(|n| n as u8 ^ name.as_bytes()[0])).unwrap()
}

async fn ask(node: &Node, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    node.client.send(method.parse().unwrap(), path, headers, "").await.unwrap()
}

async fn production(access: AccessOptions) -> Node {
    // Production migrates nothing by itself: the tables are made before.
    let dir = tempfile::TempDir::with_prefix("smith-").unwrap();
    let store = format!("sqlite://{}", dir.path().join("smith.db").display());
    let first = SystemCore::embedded().store(&store).start().await.unwrap();
    first.stop(Duration::from_secs(20)).await;
    drop(first);
    let change = move |builder: SystemBuilder| builder.production(true).access(access).store(store);
    let node = Node::made(Limits::default(), change).await;
    // The node's own directory is another one; this one is to live as long.
    std::mem::forget(dir);
    node
}

#[tokio::test]
async fn without_a_token_one_may_look_and_not_act() {
    let node = production(AccessOptions::default()).await;
    assert_eq!(ask(&node, "GET", "/debug/v1/tree", &[]).await.status, 200);
    let key = [("idempotency-key", "1")];
    let refused = ask(&node, "POST", KILL, &key).await;
    assert_eq!(refused.status, 403);
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert_eq!(
        detail,
        "without a token one is viewer here, and this wants operator: start the node with \
         --operator or in development, or send a token"
    );
    for path in [
        "/api/v1/data/ingest",
        "/api/v1/dead-letters/requeue",
        "/api/v1/consumers/x/pause",
        "/api/v1/timers/message/x/cancel",
        "/debug/actors/resources/pool.sqlite/kill",
        "/debug/v1/dead-letters/x/purge",
        "/debug/v1/sagas/a/b/abort",
        "/debug/v1/projections/streams/rebuild",
    ] {
        assert_eq!(ask(&node, "POST", path, &key).await.status, 403, "{path}");
    }
    for path in [
        "/api/v1/events",
        "/api/v1/streams/a",
        "/api/v1/dead-letters/x",
        "/debug/v1/actors/domain/aggregates/a/state",
    ] {
        let refused = ask(&node, "GET", path, &[]).await;
        assert_eq!(refused.status, 403, "{path} shows payloads");
    }
    let info = ask(&node, "GET", "/debug/v1/node", &[]).await.json();
    assert_eq!((&info["role"], &info["actions"]["allowed"]), (&json!("viewer"), &json!(false)));
    assert_eq!(node.get("/debug/v1/actors/domain/projections/streams").await["node"]["life"], 1);

    let node = production(AccessOptions::default().operator(true)).await;
    assert_eq!(ask(&node, "POST", KILL, &key).await.status, 200);
}

#[tokio::test]
async fn roles_may_what_they_may() {
    let (view, viewer) = token(Role::Viewer, "vic");
    let (act, operator) = token(Role::Operator, "olga");
    let (all, admin) = token(Role::Admin, "ann");
    let access = AccessOptions::default().tokens([viewer, operator, admin]);
    let node = Node::made(Limits::default(), |builder| builder.access(access)).await;
    let bearer = |token: &str| format!("Bearer {token}");
    let (view, act, all) = (bearer(&view), bearer(&act), bearer(&all));
    let sent = node
        .client
        .send(
            "POST".parse().unwrap(),
            "/api/v1/data/ingest",
            &[("authorization", &act), ("content-type", "application/cloudevents+json")],
            event("1", "a").to_string(),
        )
        .await
        .unwrap();
    assert_eq!(sent.status, 200, "{}", sent.text());
    for (who, kills, sees) in [(&view, 403, false), (&act, 200, false), (&all, 200, true)] {
        let headers = [("authorization", who.as_str()), ("idempotency-key", "1")];
        assert_eq!(ask(&node, "POST", KILL, &headers).await.status, kills);
        let events = ask(&node, "GET", "/debug/v1/streams/a", &headers).await.json();
        let payload = &events["events"][0]["payload"];
        assert_eq!(payload.get("hidden").is_none(), sees, "{payload}");
    }
    // Who did it is in the record.
    let timeline =
        ask(&node, "GET", "/debug/v1/timeline", &[("authorization", &view)]).await.json();
    let deeds = timeline["events"].as_array().unwrap().iter().filter(|one| one["kind"] == "action");
    let by: Vec<_> = deeds.map(|one| one["by"].as_str().unwrap().to_owned()).collect();
    assert_eq!(by, ["olga", "ann"]);
    // Wrong ones are told apart from missing ones, and too many of them wait.
    let wrong = [("authorization", "Bearer smith_ann_00")];
    let refused = ask(&node, "GET", "/debug/v1/tree", &wrong).await;
    assert_eq!(
        (refused.status, refused.json()["detail"].clone()),
        (401, json!("the token is wrong"))
    );
    assert!(refused.header("www-authenticate").unwrap().starts_with("Bearer"));
    let tired =
        eventually(DEADLINE, async || match ask(&node, "GET", "/debug/v1/tree", &wrong).await {
            reply if reply.status == 429 => Ok(reply),
            reply => Err(reply.status),
        })
        .await;
    assert!(tired.header("retry-after").is_some());
    assert_eq!(ask(&node, "GET", "/debug/v1/tree", &[("authorization", &all)]).await.status, 200);
}

#[tokio::test]
async fn pages_from_elsewhere_and_other_names_are_not_taken() {
    let node = Node::start().await;
    for (name, value, status) in [
        ("origin", "http://evil.example", 403),
        ("origin", "null", 403),
        ("host", "evil.example", 421),
        ("host", "127.0.0.1.evil.example", 421),
        ("host", "", 421),
    ] {
        for (method, path) in [("GET", "/debug/v1/tree"), ("POST", KILL), ("GET", "/")] {
            let reply = ask(&node, method, path, &[(name, value), ("idempotency-key", "1")]).await;
            assert_eq!(reply.status, status, "{method} {path} with {name}: {value}");
            assert_eq!(reply.header("access-control-allow-origin"), None);
        }
    }
    // Two hosts: which of them is meant is for nobody to guess.
    let two = [("host", "127.0.0.1"), ("host", "evil.example")];
    assert_eq!(ask(&node, "GET", "/debug/v1/tree", &two).await.status, 400);
    let reply = ask(&node, "GET", "/debug/v1/tree?token=smith_ann_1", &[]).await;
    assert_eq!(reply.status, 400, "a token in an address ends up in logs");
    let reply = ask(&node, "GET", "/", &[]).await;
    let policy = reply.header("content-security-policy").unwrap();
    for part in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
}

#[tokio::test]
async fn no_path_leads_out_of_the_page_or_the_tree() {
    let node = Node::start().await;
    for path in [
        "/assets/../../Cargo.toml",
        "/assets/..%2f..%2fCargo.toml",
        "/assets/%2e%2e/%2e%2e/Cargo.toml",
        "/assets//etc/passwd",
        "/debug/v1/actors/../../etc/passwd",
        "/debug/v1/actors/%2e%2e%2fetc",
        "/debug/v1/heat/99999999",
        "/debug/v1/graph.exe",
    ] {
        let reply = ask(&node, "GET", path, &[]).await;
        assert!(matches!(reply.status, 400 | 404), "{path}: {}", reply.status);
        assert!(!reply.text().contains("[workspace]") && !reply.text().contains("root:"), "{path}");
    }
    let reply = ask(&node, "GET", "/debug/v1/actors/%FF/plan", &[]).await;
    assert_eq!(reply.status, 400);
}

#[tokio::test]
async fn large_bodies_and_strange_names_do_no_harm() {
    let node = Node::start().await;
    let large = "x".repeat(10 << 20);
    let reply =
        node.client.send("POST".parse().unwrap(), KILL, &[("idempotency-key", "1")], large).await;
    // The server may answer and close before all of it was sent.
    if let Ok(reply) = reply {
        assert_eq!(reply.status, 413);
    }
    let name = "<script>alert(1)</script>\"'&";
    node.fill(&[event("1", name)]).await;
    for (path, kind) in [
        ("/debug/v1/tree", "application/json"),
        ("/debug/v1/graph.svg", "image/svg+xml"),
        ("/debug/v1/graph.mmd", "text/plain; charset=utf-8"),
        ("/debug/v1/metrics", "text/plain; version=0.0.4; charset=utf-8"),
    ] {
        let reply = ask(&node, "GET", path, &[]).await;
        assert_eq!(reply.header("content-type"), Some(kind), "{path}");
        let text = reply.text();
        assert!(kind == "application/json" || !text.contains("<script>"), "{path}: {text}");
    }
}

/// A thousand that open a stream and read nothing: the node bounds them, and others are served.
#[tokio::test]
async fn idle_and_slow_readers_are_bounded() {
    let limits = Limits::default();
    let node = Node::made(limits, |builder| builder).await;
    let mut idle = Vec::new();
    for _ in 0..1_000 {
        let Ok(mut stream) = TcpStream::connect(node.addr()).await else { break };
        let host = node.addr();
        let request = format!("GET /debug/v1/stream HTTP/1.1\r\nHost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        idle.push(stream);
    }
    // The last of them are told that there are too many.
    let told = eventually(DEADLINE, async || {
        let reply = Client::new(node.addr())
            .with_deadline(Duration::from_secs(5))
            .get("/debug/v1/stream")
            .await;
        match reply {
            Ok((503, problem)) => Ok(problem),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(told["detail"].as_str().unwrap().contains("64 streams are open"), "{told}");
    // Nobody of those reads; the node's actors go on and nothing waits for them.
    node.fill(&[event("1", "a")]).await;
    for n in 0..20 {
        node.core.actors().kill("/domain/projections/streams").unwrap();
        eventually(DEADLINE, async || {
            let one = node.get("/debug/v1/actors/domain/projections/streams").await["node"].clone();
            if one["state"] == "up" { Ok(()) } else { Err(format!("{n}: {one}")) }
        })
        .await;
    }
    drop(idle);
    eventually(DEADLINE, async || {
        let mut stream = TcpStream::connect(node.addr()).await.unwrap();
        let host = node.addr();
        let request = format!("GET /debug/v1/stream HTTP/1.1\r\nHost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        match &answer {
            b"HTTP/1.1 200" => Ok(()),
            other => Err(String::from_utf8_lossy(other).into_owned()),
        }
    })
    .await;
}

#[tokio::test]
async fn no_address_is_open_by_mistake() {
    let anywhere: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let dir = tempfile::TempDir::new().unwrap();
    let store = format!("sqlite://{}", dir.path().join("smith.db").display());
    let start = async |access: AccessOptions| {
        SystemCore::embedded().store(&store).listen(anywhere).access(access).start().await
    };
    let refused = start(AccessOptions::default().operator(true)).await.unwrap_err();
    assert!(matches!(refused, SystemError::NoToken { .. }), "{refused}");
    let (text, token) = token(Role::Viewer, "vic");
    let refused = start(AccessOptions::default().tokens([token.clone()])).await.unwrap_err();
    assert!(matches!(refused, SystemError::NoTls { .. }), "{refused}");
    let access = AccessOptions::default().tokens([token]).behind_proxy(true).host("smith.example");
    let core = start(access).await.unwrap();
    let addr = SocketAddr::from(([127, 0, 0, 1], core.addr().unwrap().port()));
    let client = Client::new(addr);
    let get = async |headers: &[(&str, &str)]| {
        client.send("GET".parse().unwrap(), "/debug/v1/tree", headers, "").await.unwrap().status
    };
    assert_eq!(get(&[]).await, 401, "from loopback, too");
    let bearer = format!("Bearer {text}");
    assert_eq!(get(&[("authorization", &bearer)]).await, 200);
    assert_eq!(get(&[("authorization", &bearer), ("host", "smith.example")]).await, 200);
    assert_eq!(get(&[("authorization", &bearer), ("host", "evil.example")]).await, 421);
    assert_eq!(client.get("/healthz").await.unwrap().0, 200, "who balances load has no token");
    core.stop(Duration::from_secs(20)).await;
}

/// HTTPS: a certificate and its key, a caller that checks them, and one who speaks without.
#[cfg(feature = "tls")]
#[tokio::test]
async fn over_tls_tokens_are_nobody_elses() {
    use std::sync::Arc;

    use mister_smith::http::tls::{Tls, TlsError};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::ServerName;
    use tokio_rustls::rustls::{ClientConfig, RootCertStore};

    let dir = tempfile::TempDir::new().unwrap();
    let made = rcgen::generate_simple_self_signed(["node.example".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let swapped = Tls::load(&key, &cert).unwrap_err();
    assert!(matches!(swapped, TlsError::File { .. }), "{swapped}");

    let (text, token) = token(Role::Viewer, "vic");
    let access = AccessOptions::default()
        .tokens([token])
        .tls(Tls::load(&cert, &key).unwrap())
        .host("node.example");
    let store = format!("sqlite://{}", dir.path().join("smith.db").display());
    let anywhere: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let core = SystemCore::embedded().store(store).listen(anywhere).access(access).start().await;
    let core = core.unwrap();
    let addr = SocketAddr::from(([127, 0, 0, 1], core.addr().unwrap().port()));

    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("node.example").unwrap();
    let ask = async |authorization: &str| {
        let stream = TcpStream::connect(addr).await.unwrap();
        let mut stream = connector.connect(name.clone(), stream).await.unwrap();
        let request = format!(
            "GET /debug/v1/node HTTP/1.1\r\nHost: node.example\r\nOrigin: https://node.example\r\n\
             {authorization}Connection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // A peer that ends without a farewell has still said all of it.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let answer = ask(&format!("Authorization: Bearer {text}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"role\":\"viewer\""), "{answer}");
    assert!(ask("").await.starts_with("HTTP/1.1 401"));
    // Who speaks plain HTTP gets no answer to it, and holds up nobody.
    let plain = Client::new(addr).with_deadline(Duration::from_secs(30)).get("/healthz").await;
    assert!(plain.is_err(), "{plain:?}");
    core.stop(Duration::from_secs(20)).await;
}
