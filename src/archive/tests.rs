//! Guards against files that look whole and are not.

use hyper::body::Bytes;
use mister_smith_actors::store::archive::Cold;
use tempfile::TempDir;

use super::{Directory, PathBuf, of_url};

#[tokio::test]
async fn a_file_has_its_name_when_it_is_whole() {
    let dir = TempDir::new().unwrap();
    let cold = Directory::new(dir.path().join("made/when/needed"));
    assert_eq!(cold.list().await.unwrap(), Vec::<String>::new(), "nothing was archived yet");

    let mut first = cold.create("a").await.unwrap();
    first.write(Bytes::from_static(b"first ")).await.unwrap();
    assert_eq!(cold.list().await.unwrap(), Vec::<String>::new());
    first.write(Bytes::from_static(b"file")).await.unwrap();
    first.keep().await.unwrap();
    assert_eq!(cold.read("a", 0, 100).await.unwrap(), "first file");
    assert_eq!(cold.read("a", 6, 2).await.unwrap(), "fi");
    assert_eq!(cold.read("a", 60, 2).await.unwrap(), "");

    // One that is given up leaves what was there, and nothing of its own.
    let mut second = cold.create("a").await.unwrap();
    second.write(Bytes::from_static(b"half of the seco")).await.unwrap();
    drop(second);
    assert_eq!(cold.read("a", 0, 100).await.unwrap(), "first file");
    assert_eq!(std::fs::read_dir(dir.path().join("made/when/needed")).unwrap().count(), 1);

    let mut third = cold.create("a").await.unwrap();
    third.write(Bytes::from_static(b"third")).await.unwrap();
    assert_eq!(cold.read("a", 0, 100).await.unwrap(), "first file", "until it is kept");
    third.keep().await.unwrap();
    assert_eq!(cold.read("a", 0, 100).await.unwrap(), "third");
    let error = cold.read("b", 0, 1).await.unwrap_err().to_string();
    assert!(error.contains("made/when/needed/b: "), "{error}");
}

#[test]
fn an_address_can_name_the_directory() {
    for (url, store, directory) in [
        ("postgres:///db?host=/tmp", "postgres:///db?host=/tmp", None),
        ("postgres:///db?archive_dir=/a%20b", "postgres:///db", Some("/a b")),
        ("postgres://u@h/db?x=1&archive_dir=c&y=2", "postgres://u@h/db?x=1&y=2", Some("c")),
        ("data/smith.db", "data/smith.db", None),
    ] {
        assert_eq!(of_url(url), (store.to_owned(), directory.map(PathBuf::from)));
    }
}
