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

-- The streams are a projection like others now, and are made again.
drop table stream_summaries;
delete from checkpoints where name = 'stream_summaries';
