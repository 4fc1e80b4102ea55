drop table checkpoints;
drop table command_results;
drop table events;
drop table event_types;
drop table streams;
drop table store_head;
