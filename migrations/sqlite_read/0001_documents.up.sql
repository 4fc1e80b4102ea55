-- The read models, in a file of their own: all of it follows from the log.

-- The log that they were made from.
create table log (
    id         integer primary key check (id = 1),
    store_uuid blob not null
) strict;

-- One making of a projection's documents. One is active: it is the one that is
-- read. State 0: being made, 1: active, 2: no longer read.
create table projection_builds (
    id         integer primary key autoincrement,
    projection text not null,
    version    integer not null,
    partitions integer not null,
    state      integer not null
) strict;

create unique index projection_builds_active on projection_builds (projection) where state = 1;
create unique index projection_builds_made on projection_builds (projection) where state = 0;

create table documents (
    build    integer not null,
    id       text not null,
    position integer not null,
    data     text not null, -- JSON
    primary key (build, id)
) strict, without rowid;

-- Events that could not be applied, and those that wait behind them.
create table parked (
    build    integer not null,
    id       text not null,
    position integer not null,
    attempts integer not null,
    error    text not null,
    primary key (build, id, position)
) strict, without rowid;

-- How far each build has read. The epoch is the fence: one writes only while
-- nobody has claimed the row after it.
create table checkpoints (
    name     text primary key,
    position integer not null,
    owner    text not null,
    epoch    integer not null
) strict, without rowid;
