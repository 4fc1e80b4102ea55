-- What is to happen at a time. A timer stays until its effect is durable.
create table timers (
    id       integer primary key autoincrement, -- another one each time that it is set anew
    kind     text not null,    -- who handles it
    name     text not null,
    due      integer not null, -- microseconds since 1970
    at       integer not null, -- when it is looked at next: due, or later after a failure
    payload  blob not null,
    state    integer not null, -- 0 waits, 1 no program that tried it knows it
    attempts integer not null,
    deaths   integer not null, -- processes that died while they fired it
    reason   text not null,    -- why it is still here
    unique (kind, name)
) strict;

create index timers_at on timers (kind, at);
create index timers_unknown on timers (kind) where state = 1;
