use super::*;

/// A peer of a bench once held the lock file at 3.46.
#[test]
fn the_linked_engine_is_new_enough() {
    check("smith.db").unwrap();
}

#[test]
fn an_engine_with_the_reset_bug_is_refused_by_name() {
    accept("smith.db", 3_051_003).unwrap();
    accept("smith.db", 4_000_000).unwrap();
    for old in [3_046_000, 3_051_002] {
        let error = accept("smith.db", old).unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    }
    assert_eq!(
        accept("smith.db", 3_046_000).unwrap_err().to_string(),
        "cannot open smith.db: this program is linked with SQLite 3.46.0, which can corrupt a \
         file when its write-ahead log is reset; build it with 3.51.3 or newer \
         (libsqlite3-sys 0.37)"
    );
}
