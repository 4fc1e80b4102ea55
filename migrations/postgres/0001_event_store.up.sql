-- The log. A position is given inside the committing transaction, under a lock
-- on the head, so that the order of positions is the order of commits, without
-- a hole, from however many nodes.

create schema if not exists ms_framework;
set local search_path to ms_framework;

create table store_head (
    id         integer primary key check (id = 1),
    position   bigint not null,
    -- Names this log; a copy on another bus must not be taken for it.
    store_uuid uuid not null default gen_random_uuid(),
    -- How many positions one partition of the events holds.
    partition_size bigint not null default 10000000,
    -- The time of the last mark, for all nodes to decide on whether to make one.
    marked_at  bigint
) with (fillfactor = 10);

insert into store_head (id, position) values (1, 0);

-- Numbers of streams are handed out in blocks, so that a writer knows the
-- number of a new stream before it writes.
create sequence stream_ids increment by 1000;

create table streams (
    id             bigint primary key,
    name           text not null collate "C" unique,
    -- What kind of stream it is: its name up to the first '-', or all of it.
    category       text not null collate "C",
    version        bigint not null,
    first_position bigint not null,
    last_position  bigint not null,
    -- 0: takes events. 1: ended with a tombstone.
    status         smallint not null default 0
) with (fillfactor = 70);

-- A type with its schema version is written once and named by a number. The
-- list of what the log holds is then a read of this small table.
create table event_types (
    id             integer generated always as identity primary key,
    name           text not null collate "C",
    schema_version integer not null,
    unique (name, schema_version)
);

-- No unique index on event_id: it would be a third and random b-tree, and
-- command_results already keeps one request from counting twice. The row of
-- the stream guards (stream_id, version): it is written in the same statement.
create table events (
    position    bigint not null,
    stream_id   bigint not null,
    version     bigint not null,
    recorded_at bigint not null, -- microseconds since 1970
    type_id     integer not null,
    codec       smallint not null,
    event_id    uuid not null,
    data        bytea not null,
    meta        bytea not null,
    primary key (position)
) partition by range (position);

create index events_stream on events (stream_id, version);

-- Makes the partition that holds a position, if it is not there. Attached, not
-- made in its place: that waits for no reader, and no append waits for it.
create function make_partition(at bigint) returns text
language plpgsql as $$
declare
    size bigint := (select partition_size from ms_framework.store_head);
    low  bigint := (at - 1) / size * size + 1;
    part text   := 'events_p' || lpad(low::text, 16, '0');
begin
    if to_regclass('ms_framework.' || part) is null then
        -- Two nodes may do so at once.
        perform pg_advisory_xact_lock(7033157212);
        -- Not to_regclass again: it remembers what it did not find.
        if not exists (select from pg_inherits i join pg_class c on c.oid = i.inhrelid
                        where i.inhparent = 'ms_framework.events'::regclass
                          and c.relname = part) then
            execute format(
                'create table ms_framework.%I (like ms_framework.events including all)', part);
            execute format(
                'alter table ms_framework.events attach partition ms_framework.%I
                     for values from (%s) to (%s)', part, low, low + size);
        end if;
    end if;
    return part;
end $$;

-- Partitions of which no position is taken yet.
create function partitions_ahead() returns bigint
language sql stable as $$
    select count(*)
      from pg_inherits i join pg_class c on c.oid = i.inhrelid, ms_framework.store_head h
     where i.inhparent = 'ms_framework.events'::regclass
       and substr(c.relname, 9)::bigint > h.position
$$;

select make_partition(1);
select make_partition(1 + (select partition_size from store_head));

-- The first answer to each idempotency key, written in the append's own
-- statement. An append's events stand side by side, so that the last place
-- and the count give the first.
create table command_results (
    key         uuid primary key,
    stream_id   bigint not null,
    version     bigint not null,
    position    bigint not null,
    events      integer not null,
    recorded_at bigint not null
);

-- Where to begin reading from a time: before the first event of a minute. The
-- times only go up, whatever the clocks did.
create table position_marks (
    at       bigint primary key, -- microseconds since 1970
    position bigint not null
);

-- At most one a stream, and only to read less: it can be deleted at any time.
create table snapshots (
    stream_id bigint primary key,
    version   bigint not null,
    schema    bigint not null,
    codec     smallint not null,
    data      bytea not null,
    taken_at  bigint not null
);

-- How far each projection has read. The epoch is the fence: a projection
-- writes only while nobody has claimed the row after it.
create table checkpoints (
    name        text primary key,
    position    bigint not null,
    owner       text not null,
    epoch       bigint not null,
    -- When others may claim it although its owner has not given it up.
    lease_until timestamptz not null default '-infinity'
);
