-- Appending without a hot row. The key of the position says who is first, so an
-- append writes its events and the rows of new streams, and nothing else. The
-- rows of other streams, and the position in store_head, follow about a second
-- later: they are right up to that position, and the events behind it have the
-- rest.
--
-- Programs from before this version go on appending beside newer ones until
-- they are stopped: they write those rows with each append, at the position in
-- store_head, and the key refuses them while that is behind. Newer programs
-- bring the rows forward with each append while they see an older one.
set local search_path to ms_framework;

-- Which parts of the log, of 50,000 positions each, have events of a category:
-- a reader of a rare one leaves the others out. Known from one position to
-- another; older programs move neither, so nothing of theirs is missed.
create table category_parts (
    category text not null collate "C",
    part     bigint not null,
    primary key (category, part)
);

alter table store_head add column parts_from bigint not null default 0;
alter table store_head add column parts_to bigint not null default 0;
update store_head set parts_from = position, parts_to = position;

-- Brings the rows forward by at most so many positions; answers how many are
-- left. The row of the head is held to the end, so one does it at a time, and
-- in the order in which older programs take their locks.
create function settle(most bigint) returns bigint
language plpgsql as $$
declare
    base  bigint;
    parts bigint;
    head  bigint;
    last  bigint;
    edge  bigint;
begin
    select h.position, h.parts_to into base, parts
      from ms_framework.store_head h where h.id = 1 for update;
    select e.position into head from ms_framework.events e
     where e.position > base order by e.position desc limit 1;
    head := coalesce(head, base);
    last := least(head, base + most);
    edge := least(last, parts + most);
    if last > base then
        update ms_framework.streams s
           set version = t.version, last_position = t.position
          from (select distinct on (e.stream_id) e.stream_id, e.version, e.position
                  from ms_framework.events e
                 where e.position > base and e.position <= last
                 order by e.stream_id, e.position desc) t
         where s.id = t.stream_id and s.version < t.version;
    end if;
    if edge > parts then
        insert into ms_framework.category_parts (category, part)
        select distinct s.category, (e.position - 1) / 50000
          from ms_framework.events e join ms_framework.streams s on s.id = e.stream_id
         where e.position > parts and e.position <= edge
        on conflict do nothing;
    end if;
    if last > base or edge > parts then
        update ms_framework.store_head set position = last, parts_to = edge where id = 1;
    end if;
    return head - edge;
end $$;

-- Keys go by their age, which is the server's clock from now on.
create index command_results_at on command_results (recorded_at);
