//! TLS to PostgreSQL, with an authority of one's own.

use std::path::Path;

use mister_smith::actors::store::postgres::{PgOptions, PgStore};
use mister_smith::actors::store::{EventStore, StoreError};
use mister_smith_testkit::{Postgres, ServerTls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use crate::server::{name_of, numbered};

/// An authority that is trusted because its certificate is given.
fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key.
fn issued(by: &CertifiedIssuer<'_, KeyPair>, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    (params.signed_by(&key, by).unwrap().pem(), key.serialize_pem())
}

fn file(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

async fn fails(url: &str) -> String {
    let error = PgStore::open(url, PgOptions::default()).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{url}: {error:?}");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_trusted_by_its_authority_and_asks_for_a_certificate() {
    let dir = TempDir::new().unwrap();
    let (ours, theirs) = (authority("ours"), authority("theirs"));
    let (certificate, key) = issued(&ours, "localhost");
    let clients = Some(ours.as_ref().pem());
    let server = Postgres::start_with_tls(ServerTls { certificate, key, clients }).await;
    let local = server.create_database().await;
    mister_smith::migrate::up(&local).await.unwrap();

    let root = file(dir.path(), "ca.pem", &ours.as_ref().pem());
    let strange = file(dir.path(), "strange.pem", &theirs.as_ref().pem());
    let (cert, key) = issued(&ours, "smith");
    let (cert, key) = (file(dir.path(), "cert.pem", &cert), file(dir.path(), "key.pem", &key));
    let (other, other_key) = issued(&theirs, "smith");
    let other = file(dir.path(), "other.pem", &other);
    let other_key = file(dir.path(), "other_key.pem", &other_key);

    let address = server.address(name_of(&local));
    let url = |root: &str, mode: &str, cert: &str, key: &str| {
        format!("{address}?sslmode={mode}&sslrootcert={root}&sslcert={cert}&sslkey={key}")
    };
    let good = url(&root, "verify-full", &cert, &key);
    let store = PgStore::open(&good, PgOptions::default()).await.unwrap();
    store.append_batch([numbered("s", 1)].into()).await.unwrap();
    assert_eq!(store.head().await.unwrap().get(), 1);
    let used = "select bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid) \
                where application_name = 'mister-smith'";
    assert_eq!(server.sql(name_of(&local), used).await, "t");
    // Migrations read the same address.
    mister_smith::migrate::status(&good).await.unwrap();

    // Another authority, another name of the server, no certificate, somebody else's.
    for wrong in [
        url(&strange, "verify-full", &cert, &key),
        good.replace("localhost", "127.0.0.1"),
        format!("{address}?sslmode=verify-full&sslrootcert={root}"),
        url(&root, "verify-full", &other, &other_key),
    ] {
        let text = fails(&wrong).await;
        assert!(
            text.contains("TLS failed") || text.contains("does not let this user in"),
            "{text}"
        );
    }
    // The name does not matter to `verify-ca`, the authority does.
    let unnamed = url(&root, "verify-ca", &cert, &key).replace("localhost", "127.0.0.1");
    PgStore::open(&unnamed, PgOptions::default()).await.unwrap();
    fails(&url(&strange, "verify-ca", &cert, &key)).await;
    // And without TLS nobody gets in.
    fails(&format!("{address}?sslmode=disable")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slip_in_an_address_is_refused_and_not_passed_over() {
    let text = fails("postgres:///db?host=/nowhere&sslmod=verify-full").await;
    assert!(text.contains("unknown parameter `sslmod`"), "{text}");
}
