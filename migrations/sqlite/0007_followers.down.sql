-- Places and notes go back to where the program before finds them. Requests,
-- pauses and what was parked are of no use to it.
insert into projection_builds (projection, version, partitions, state)
select '$' || name, 1, 1, 1
  from followers
 where name like 'relay.%' or name like 'consumer.%' or name like 'timers.%'
    or name in ('sagas', 'outbox');

insert into checkpoints (name, position, owner, epoch)
select 'build ' || b.id || '/0', f.position, '', f.epoch
  from followers f
  join projection_builds b on b.projection = '$' || f.name and b.state = 1;

insert into documents (build, id, position, data)
select b.id, n.id, f.position, cast(n.data as text)
  from follower_notes n
  join followers f on f.name = n.name
  join projection_builds b on b.projection = '$' || f.name and b.state = 1
 where n.id not like '$%';

drop table follower_notes;
drop table followers;
