use std::time::Duration;

use super::{PgAddressError, PgOptions, Wake, read_address};

fn options(url: &str) -> Result<PgOptions, PgAddressError> {
    read_address(url, PgOptions::default()).map(|(_, options)| options)
}

#[test]
fn the_address_sets_what_it_names_and_nothing_else() {
    let read = options(
        "postgres:///db?host=/run&pool_min=2&pool_max=9&acquire_timeout_s=3&idle_timeout_s=60\
         &max_lifetime_s=90&statement_timeout_s=7&reconnect_s=4&wake=poll&keep_keys_s=86400",
    );
    let expected = PgOptions::default()
        .min_connections(2)
        .connections(9)
        .acquire_timeout(Duration::from_secs(3))
        .idle_timeout(Duration::from_secs(60))
        .max_lifetime(Duration::from_secs(90))
        .statement_timeout(Duration::from_secs(7))
        .reconnect_for(Duration::from_secs(4))
        .wake(Wake::Poll)
        .keep_keys(Duration::from_secs(86_400));
    assert_eq!(read.unwrap(), expected);
    let plain =
        options("postgres://user:secret@host:5433/db?sslmode=verify-full&sslrootcert=ca.pem");
    assert_eq!(plain.unwrap(), PgOptions::default());
}

#[test]
fn a_parameter_that_cannot_be_used_is_named() {
    insta::assert_snapshot!(
        options("postgres:///db?sslmod=verify-full").unwrap_err(),
        @"unknown parameter `sslmod`; there are sslmode, sslrootcert, sslcert, sslkey, host, port, user, password, dbname, options, pool_min, pool_max, acquire_timeout_s, idle_timeout_s, max_lifetime_s, statement_timeout_s, reconnect_s, wake, keep_keys_s"
    );
    insta::assert_snapshot!(
        options("postgres:///db?pool_max=many").unwrap_err(),
        @r#"parameter `pool_max` is "many"; give a whole number, as in pool_max=30"#
    );
    insta::assert_snapshot!(
        options("postgres:///db?wake=maybe").unwrap_err(),
        @r#"parameter `wake` is "maybe"; give `notify` or `poll`"#
    );
    assert!(matches!(
        options("postgres:///db?sslmode=perhaps").unwrap_err(),
        PgAddressError::Malformed(_)
    ));
}
