-- The claims of projections are those of followers, beside the documents: they
-- count deaths, can be paused, and hear requests.
alter table ms_framework.checkpoints
    add column paused  boolean not null default false,
    add column asked   bigint  not null default 0,
    add column heard   bigint  not null default 0,
    add column deaths  integer not null default 0,
    add column died_at bigint  not null default 0,
    add column trying  bigint  not null default 0,
    add column tries   integer not null default 0;

create table ms_projections.projection_notes (
    name text not null collate "C",
    id   text not null collate "C",
    data bytea not null,
    primary key (name, id)
);

-- U+0000 is written as U+0001 U+0001 from now on, and U+0001 as U+0001 U+0002.
update ms_projections.documents
   set data = regexp_replace(
           data::text, '(?<!\\)((?:\\\\)*)\\u0001', '\1\\u0001\\u0002', 'g')::jsonb
 where data::text like '%\\u0001%';

update ms_projections.documents
   set id = replace(id, E'\x01', E'\x01\x02') where strpos(id, E'\x01') > 0;

update ms_projections.parked
   set id = replace(id, E'\x01', E'\x01\x02'), error = replace(error, E'\x01', E'\x01\x02')
 where strpos(id || error, E'\x01') > 0;
