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

-- Brings the rows forward by at most so many positions; answers how many are
-- left. The row of the head is held to the end, so one does it at a time, and
-- in the order in which older programs take their locks.
create function settle(most bigint) returns bigint
language plpgsql as $$
declare
    base bigint;
    head bigint;
    last bigint;
begin
    select position into base from ms_framework.store_head where id = 1 for update;
    select e.position into head from ms_framework.events e
     where e.position > base order by e.position desc limit 1;
    if head is null then
        return 0;
    end if;
    last := least(head, base + most);
    update ms_framework.streams s
       set version = t.version, last_position = t.position
      from (select distinct on (e.stream_id) e.stream_id, e.version, e.position
              from ms_framework.events e
             where e.position > base and e.position <= last
             order by e.stream_id, e.position desc) t
     where s.id = t.stream_id and s.version < t.version;
    update ms_framework.store_head set position = last where id = 1;
    return head - last;
end $$;

-- Keys go by their age, which is the server's clock from now on.
create index command_results_at on command_results (recorded_at);
