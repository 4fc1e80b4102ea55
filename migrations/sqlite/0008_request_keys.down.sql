-- Read models are made again from the log.
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

create table parked (
    build    integer not null,
    id       text not null,
    position integer not null,
    attempts integer not null,
    error    text not null,
    primary key (build, id, position)
) strict, without rowid;

create table command_results (
    key         blob primary key,
    stream_id   integer not null,
    version     integer not null,
    position    integer not null,
    events      integer not null,
    recorded_at integer not null
) strict, without rowid;

-- A key that was used again after it had been forgotten: the last answer.
insert or replace into command_results (key, stream_id, version, position, events, recorded_at)
select k.key, e.stream_id, e.version, k.position, k.events, e.recorded_at
  from request_keys k
  join events e on e.position = k.position
 order by k.position;

drop table request_keys;
