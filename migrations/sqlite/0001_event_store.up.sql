-- The log. A position is given inside the committing transaction, so that the
-- order of positions is the order of commits, without a hole.

create table store_head (
    id         integer primary key check (id = 1),
    position   integer not null,
    -- Names this log; a copy on another bus must not be taken for it.
    store_uuid blob not null
) strict;

insert into store_head (id, position, store_uuid) values (1, 0, randomblob(16));

create table streams (
    id             integer primary key,
    name           text not null unique,
    version        integer not null,
    first_position integer not null,
    last_position  integer not null
) strict;

-- A type with its schema version is written once and named by a number. The
-- list of what the log holds is then a read of this small table.
create table event_types (
    id             integer primary key,
    name           text not null,
    schema_version integer not null,
    unique (name, schema_version)
) strict;

-- No unique index on event_id: it would be a third and random b-tree, and
-- command_results already keeps one request from counting twice.
create table events (
    position    integer primary key,
    stream_id   integer not null,
    version     integer not null,
    type_id     integer not null,
    event_id    blob not null,
    codec       integer not null,
    recorded_at integer not null, -- microseconds since 1970
    data        blob not null,
    meta        blob not null,
    unique (stream_id, version)
) strict;

-- The first answer to each idempotency key, written in the append's own
-- transaction. An append's events stand side by side, so that the last place
-- and the count give the first.
create table command_results (
    key         blob primary key,
    stream_id   integer not null,
    version     integer not null,
    position    integer not null,
    events      integer not null,
    recorded_at integer not null
) strict, without rowid;

-- How far each projection has read. The epoch is the fence: a projection
-- writes only while nobody has claimed the row after it.
create table checkpoints (
    name     text primary key,
    position integer not null,
    owner    text not null,
    epoch    integer not null
) strict, without rowid;
