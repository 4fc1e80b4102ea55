-- Who follows the log under a name, and how far it is. The epoch and the owner
-- are the fence: one writes only while nobody has claimed the row after it.
create table ms_framework.followers (
    name        text primary key collate "C",
    position    bigint not null default 0,
    owner       text not null,             -- '': it was given back
    epoch       bigint not null,
    lease_until timestamptz not null,
    paused      boolean not null default false,
    asked       bigint not null default 0, -- requests
    heard       bigint not null default 0, -- those the owner has seen
    deaths      integer not null default 0,
    died_at     bigint not null default 0,
    trying      bigint not null default 0,
    tries       integer not null default 0
) with (fillfactor = 50);

create table ms_framework.follower_notes (
    name text not null collate "C",
    id   text not null collate "C",
    data bytea not null,
    primary key (name, id)
);

-- They were builds of projections until now, with a '$' before the name. What
-- was kept moves. The builds stay behind, held by nobody for ever: a node of
-- the program before, which may still run, loses its claim and stands by. If
-- they were gone it would make new ones and begin again with the first event.
-- Their positions hold nothing back that goes by the lowest one.
create temporary table moved on commit drop as
select b.id as build, substr(b.projection, 2) as name
  from ms_projections.projection_builds b
 where b.state = 1
   and (b.projection like '$relay.%' or b.projection like '$consumer.%'
        or b.projection like '$timers.%' or b.projection in ('$sagas', '$outbox'));

insert into ms_framework.followers (name, position, owner, epoch, lease_until)
select m.name, c.position, '', c.epoch, '-infinity'
  from moved m join ms_framework.checkpoints c on c.name = 'build ' || m.build || '/0';

insert into ms_framework.follower_notes (name, id, data)
select m.name, d.id, convert_to(d.data::text, 'UTF8')
  from moved m join ms_projections.documents d on d.build = m.build;

update ms_framework.checkpoints c
   set position = 9223372036854775807, owner = 'moved to followers', epoch = c.epoch + 1, lease_until = 'infinity'
  from moved m
 where c.name = 'build ' || m.build || '/0';

delete from ms_projections.documents d using moved m where d.build = m.build;
