-- Messages that applications put in with their own transactions, until they are sent.
create table outbox (
    id         integer primary key autoincrement,
    message_id text not null,
    subject    text not null,
    headers    text not null, -- JSON
    payload    blob not null
) strict;

-- Messages that a consumer has handled, so that a repeat is known.
create table inbox (
    consumer   text not null,
    message_id text not null,
    at         integer not null, -- microseconds since 1970
    primary key (consumer, message_id)
) strict, without rowid;

create index inbox_at on inbox (at);
