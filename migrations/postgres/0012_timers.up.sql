-- What is to happen at a time. A timer stays until its effect is durable.
create table ms_framework.timers (
    id       bigint generated always as identity primary key, -- another one each time that it is set anew
    kind     text not null collate "C",  -- who handles it
    name     text not null collate "C",
    due      bigint not null,            -- microseconds since 1970
    at       bigint not null,            -- when it is looked at next: due, or later after a failure
    payload  bytea not null,
    state    smallint not null default 0, -- 0 waits, 1 no program that tried it knows it
    attempts integer not null default 0,
    deaths   integer not null default 0, -- processes that died while they fired it
    reason   text not null default '',   -- why it is still here
    unique (kind, name)
);

create index timers_at on ms_framework.timers (kind, at);
create index timers_unknown on ms_framework.timers (kind) where state = 1;
