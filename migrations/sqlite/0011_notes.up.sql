-- Beside the log: who owns which streams, and which events are passed over.

create table category_owners (
    category text primary key,
    owner    text not null,
    since    integer not null -- microseconds since 1970
) strict, without rowid;

-- Kept for good: it says who decided that an event does not count, and why.
create table skipped_events (
    stream   text not null,
    version  integer not null,
    position integer not null,
    by       text not null,
    reason   text not null,
    at       integer not null, -- microseconds since 1970
    primary key (stream, version)
) strict, without rowid;
