-- Beside the log: who owns which streams, and which events are passed over.

create table ms_framework.category_owners (
    category text primary key collate "C",
    owner    text not null,
    since    bigint not null -- microseconds since 1970
);

-- Kept for good: it says who decided that an event does not count, and why.
create table ms_framework.skipped_events (
    stream   text not null collate "C",
    version  bigint not null,
    position bigint not null,
    by       text not null,
    reason   text not null,
    at       bigint not null, -- microseconds since 1970
    primary key (stream, version)
);
