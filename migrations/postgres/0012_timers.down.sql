-- Deadlines of processes are notes of their followers again. Those whose events
-- could not be read, and all other timers, are gone.
insert into ms_framework.follower_notes (name, id, data)
select 'timers.' || substr(kind, 9),
       right(name, 20) || '/' || (convert_from(payload, 'UTF8')::json ->> 'name'),
       payload
  from ms_framework.timers
 where kind like 'process.%'
   -- PostgreSQL has no NUL in a text.
   and position('\u0000' in convert_from(payload, 'UTF8')) = 0
   and convert_from(payload, 'UTF8')::json ->> 'name' is not null
on conflict (name, id) do update set data = excluded.data;

drop table ms_framework.timers;
