drop table ms_messaging.inbox;
drop table ms_messaging.outbox;
drop schema ms_messaging;
