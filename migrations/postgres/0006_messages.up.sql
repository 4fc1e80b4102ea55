create schema if not exists ms_messaging;

-- Messages that applications put in with their own transactions, until they are sent.
create table ms_messaging.outbox (
    id         bigint generated always as identity primary key,
    message_id text not null,
    subject    text not null,
    headers    text not null, -- JSON
    payload    bytea not null
);

-- Messages that a consumer has handled, so that a repeat is known.
create table ms_messaging.inbox (
    consumer   text not null collate "C",
    message_id text not null collate "C",
    at         bigint not null, -- microseconds since 1970
    primary key (consumer, message_id)
);

create index inbox_at on ms_messaging.inbox (at);
