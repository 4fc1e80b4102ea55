create schema if not exists ms_projections;

-- One making of a projection's documents. One is active: it is the one that is
-- read. State 0: being made, 1: active, 2: no longer read.
create table ms_projections.projection_builds (
    id         bigint generated always as identity primary key,
    projection text not null,
    version    bigint not null,
    partitions integer not null,
    state      smallint not null
);

create unique index projection_builds_active
    on ms_projections.projection_builds (projection) where state = 1;
create unique index projection_builds_made
    on ms_projections.projection_builds (projection) where state = 0;

create table ms_projections.documents (
    build    bigint not null,
    id       text not null collate "C",
    position bigint not null,
    data     jsonb not null,
    primary key (build, id)
) with (fillfactor = 80);

-- Events that could not be applied, and those that wait behind them.
create table ms_projections.parked (
    build    bigint not null,
    id       text not null collate "C",
    position bigint not null,
    attempts integer not null,
    error    text not null,
    primary key (build, id, position)
);
