-- Who follows the log under a name, and how far it is. The epoch and the owner
-- are the fence: one writes only while nobody has claimed the row after it.
create table followers (
    name     text primary key,
    position integer not null,
    owner    text not null,    -- '': it was given back
    epoch    integer not null,
    paused   integer not null,
    asked    integer not null, -- requests
    heard    integer not null, -- those the owner has seen
    deaths   integer not null,
    died_at  integer not null,
    trying   integer not null,
    tries    integer not null
) strict, without rowid;

create table follower_notes (
    name text not null,
    id   text not null,
    data blob not null,
    primary key (name, id)
) strict, without rowid;

-- They were builds of projections until now, with a '$' before the name.
create temporary table moved as
select b.id as build, b.state, substr(b.projection, 2) as name
  from projection_builds b
 where b.projection like '$relay.%' or b.projection like '$consumer.%'
    or b.projection like '$timers.%' or b.projection in ('$sagas', '$outbox');

insert into followers
select m.name, c.position, '', c.epoch, 0, 0, 0, 0, 0, 0, 0
  from moved m join checkpoints c on c.name = 'build ' || m.build || '/0'
 where m.state = 1;

insert into follower_notes
select m.name, d.id, cast(d.data as blob)
  from moved m join documents d on d.build = m.build
 where m.state = 1;

delete from checkpoints where name in (select 'build ' || build || '/0' from moved);
delete from documents where build in (select build from moved);
delete from projection_builds where id in (select build from moved);
drop table moved;
