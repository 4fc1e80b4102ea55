-- What kind of stream it is: its name up to the first '-', or all of it.
alter table streams add column category text not null default '';

-- 0: takes events. 1: ended with a tombstone.
alter table streams add column status integer not null default 0;

update streams
   set category = case instr(name, '-')
                  when 0 then name
                  else substr(name, 1, instr(name, '-') - 1)
                  end;

-- Where to begin reading from a time: before the first event of a minute. The
-- times only go up, whatever the clocks did.
create table position_marks (
    at       integer primary key, -- microseconds since 1970
    position integer not null
) strict;

insert into position_marks (at, position)
select at, position
  from (select recorded_at as at,
               position - 1 as position,
               recorded_at / 60000000 as minute,
               max(recorded_at / 60000000) over (
                   order by position rows between unbounded preceding and 1 preceding
               ) as before
          from events)
 where before is null or minute > before;

-- At most one a stream, and only to read less: it can be deleted at any time.
create table snapshots (
    stream_id integer primary key,
    version   integer not null,
    schema    integer not null,
    codec     integer not null,
    data      blob not null,
    taken_at  integer not null
) strict;
