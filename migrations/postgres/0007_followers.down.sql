-- Places and notes go back to where the program before finds them. Requests,
-- pauses and what was parked are of no use to it.
insert into ms_projections.projection_builds (projection, version, partitions, state)
select '$' || f.name, 1, 1, 1
  from ms_framework.followers f
 where (f.name like 'relay.%' or f.name like 'consumer.%' or f.name like 'timers.%'
        or f.name in ('sagas', 'outbox'))
   and not exists (select from ms_projections.projection_builds b
                    where b.projection = '$' || f.name and b.state = 1);

insert into ms_framework.checkpoints (name, position, owner, epoch)
select 'build ' || b.id || '/0', f.position, '', f.epoch
  from ms_framework.followers f
  join ms_projections.projection_builds b on b.projection = '$' || f.name and b.state = 1
on conflict (name) do update
   set position = excluded.position, owner = '', lease_until = '-infinity',
       epoch = greatest(checkpoints.epoch, excluded.epoch) + 1;

insert into ms_projections.documents (build, id, position, data)
select b.id, n.id, f.position,
       replace(convert_from(n.data, 'UTF8'), '\u0000', '\ufffd')::jsonb
  from ms_framework.follower_notes n
  join ms_framework.followers f on f.name = n.name
  join ms_projections.projection_builds b on b.projection = '$' || f.name and b.state = 1
 where n.id not like '$%'
on conflict (build, id) do update set position = excluded.position, data = excluded.data;

drop table ms_framework.follower_notes;
drop table ms_framework.followers;
