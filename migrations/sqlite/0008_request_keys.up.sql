-- Idempotency keys in the order of the log, which grows at its end alone; what
-- finds a key is in memory. A tree of random keys wrote a page for each. A row
-- names the last event of an append, and how many events it has.
create table request_keys (
    position integer primary key,
    key      blob not null,
    events   integer not null
) strict;

insert into request_keys (position, key, events)
select position, key, events from command_results order by position;

drop table command_results;

-- Read models have a file of their own, beside this one, and are made again
-- there from the log.
delete from checkpoints where name like 'build %';
drop table parked;
drop table documents;
drop table projection_builds;
