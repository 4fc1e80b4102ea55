-- Deadlines of processes are notes of their followers again. Those whose events
-- could not be read, and all other timers, are gone.
insert or replace into follower_notes (name, id, data)
select 'timers.' || substr(kind, 9),
       substr(name, -20) || '/' || json_extract(cast(payload as text), '$.name'),
       payload
  from timers
 where kind like 'process.%' and json_valid(cast(payload as text))
   and json_extract(cast(payload as text), '$.name') is not null;

drop table timers;
