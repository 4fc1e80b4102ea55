-- Ranges of the log that are in files, and no longer here.
create table ms_framework.archives (
    from_position bigint primary key,
    to_position   bigint not null,
    file          text not null,
    sha256        bytea not null,
    events        bigint not null,
    bytes         bigint not null,
    archived_at   bigint not null -- microseconds since 1970
);
