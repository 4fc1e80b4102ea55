use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// Takes one connection, reads a request up to `end`, and writes `answer`; gives the request.
async fn serve(
    answer: &'static str,
    end: &'static str,
) -> (Client, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(end.as_bytes()) {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(request).unwrap()
    });
    (Client::new(addr), server)
}

#[tokio::test]
async fn a_post_carries_its_type_and_body() {
    let answer = "HTTP/1.1 429 x\r\nretry-after: 1\r\ncontent-length: 7\r\n\r\n{\"a\":1}";
    let (client, server) = serve(answer, "{}\n").await;
    let answer = client.post_ingest("application/x-ndjson", "{}\n").await.unwrap();
    assert_eq!(answer, (429, serde_json::json!({"a": 1})));
    let request = server.await.unwrap();
    assert!(request.starts_with("POST /api/v1/data/ingest HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("content-type: application/x-ndjson\r\n"), "{request}");
    assert!(request.contains(&format!("host: {}\r\n", client.addr())), "{request}");
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_is_whole() {
    let (client, _server) = serve("HTTP/1.0 200 x\r\nx-a: b\r\n\r\nnot json", "\r\n\r\n").await;
    let reply = client.send(Method::GET, "/a?b=c", &[("x-c", "d")], "").await.unwrap();
    assert_eq!((reply.status, reply.header("x-a")), (200, Some("b")));
    assert_eq!(reply.json(), Value::String("not json".into()));
}

#[tokio::test]
async fn a_broken_answer_is_told_from_a_refused_connection() {
    let (client, server) =
        serve("HTTP/1.1 200 x\r\ncontent-length: 9\r\n\r\nhalf", "\r\n\r\n").await;
    let error = client.get("/").await.unwrap_err();
    assert!(matches!(error, ClientError::Broken(_)), "{error:?}");
    server.await.unwrap();
    let error = client.get("/").await.unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(listener.local_addr().unwrap());
    let error = client.with_deadline(Duration::from_millis(20)).get("/").await.unwrap_err();
    assert!(matches!(error, ClientError::Timeout { .. }), "{error:?}");
}
