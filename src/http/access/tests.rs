use std::net::Ipv4Addr;

use super::*;

const FROM: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn bytes(seed: u8) -> [u8; 48] {
    std::array::from_fn(|n| seed.wrapping_mul(31).wrapping_add(n as u8))
}

#[tokio::test]
async fn a_token_is_known_by_its_hash_alone() {
    let (text, token) = Token::create(Role::Operator, "ann", bytes(1)).unwrap();
    let (other, _) = Token::create(Role::Admin, "ann", bytes(2)).unwrap();
    let line = token.to_string();
    assert!(line.starts_with("operator ann $argon2id$v=19$"), "{line}");
    assert!(!line.contains(&text[10..]), "the secret is in the file");
    let read = Token::read(&format!("# who may what\n\n{line}\n")).unwrap();
    assert_eq!(read, [token]);
    let access = Access::new(read, None);
    let bearer = format!("Bearer {text}");
    for _ in 0..3 {
        let caller = access.caller(FROM, Some(&bearer)).await.unwrap();
        assert_eq!(caller, Caller { role: Role::Operator, name: Some("ann".into()) });
    }
    assert_eq!(access.caller(FROM, None).await, Err(Denied::Missing));
    assert_eq!(access.caller(FROM, Some(&text)).await, Err(Denied::Missing), "no scheme");
    assert_eq!(access.caller(FROM, Some(&format!("Basic {text}"))).await, Err(Denied::Missing));
    for wrong in [&*other, "smith_bob_00", "smith_ann_", "x", ""] {
        let denied = access.caller(FROM, Some(&format!("Bearer {wrong}"))).await;
        assert_eq!(denied, Err(Denied::Wrong), "{wrong}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_guesses_waits_and_others_do_not() {
    let (text, token) = Token::create(Role::Viewer, "ann", bytes(1)).unwrap();
    let access = Access::new(vec![token], Some(Role::Viewer));
    for _ in 0..FAILURES {
        assert_eq!(access.caller(FROM, Some("Bearer smith_eve_1")).await, Err(Denied::Wrong));
    }
    let bearer = format!("Bearer {text}");
    let waits = access.caller(FROM, Some(&bearer)).await;
    assert!(matches!(waits, Err(Denied::TooMany(1..=61))), "{waits:?}");
    let elsewhere = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));
    assert!(access.caller(elsewhere, Some(&bearer)).await.is_ok());
    // What is known needs no hash, and no wait.
    assert!(access.caller(FROM, Some(&bearer)).await.is_ok());
    assert!(access.caller(FROM, None).await.is_ok());
    tokio::time::advance(WINDOW).await;
    assert_eq!(access.caller(FROM, Some("Bearer smith_eve_1")).await, Err(Denied::Wrong));
}

#[test]
fn a_file_with_a_fault_says_which() {
    let (_, token) = Token::create(Role::Viewer, "ann", bytes(1)).unwrap();
    for (text, said) in [
        (format!("{token}\n{token}"), "there are two tokens named ann"),
        (
            "viewer ann".to_owned(),
            "line 1 is no token; write `ROLE NAME HASH` as `smith token` prints it",
        ),
        (
            token.to_string().replace("viewer", "root"),
            "\"root\" is no role; give viewer, operator or admin",
        ),
        (
            token.to_string().replace("ann", "a_b"),
            "\"a_b\" is no name; use letters, digits, '-' and '.'",
        ),
    ] {
        assert_eq!(Token::read(&text).unwrap_err().to_string(), said);
    }
    let hash = Token::read("viewer ann plain").unwrap_err().to_string();
    assert!(hash.starts_with("the hash of ann is no Argon2id hash"), "{hash}");
}
