drop table parked;
drop table documents;
drop table projection_builds;
delete from checkpoints;

create table stream_summaries (
    stream        text primary key,
    events        integer not null,
    first_at      integer not null, -- microseconds since 1970
    last_at       integer not null,
    by_type       text not null,    -- JSON object: type to count
    last_codec    integer not null,
    last_payload  blob not null,
    last_position integer not null
) strict;
