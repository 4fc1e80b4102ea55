-- The claims of projections are those of followers, beside the documents: they
-- count deaths, can be paused, and hear requests.
alter table checkpoints add column paused  integer not null default 0;
alter table checkpoints add column asked   integer not null default 0;
alter table checkpoints add column heard   integer not null default 0;
alter table checkpoints add column deaths  integer not null default 0;
alter table checkpoints add column died_at integer not null default 0;
alter table checkpoints add column trying  integer not null default 0;
alter table checkpoints add column tries   integer not null default 0;

create table projection_notes (
    name text not null,
    id   text not null,
    data blob not null,
    primary key (name, id)
) strict, without rowid;
