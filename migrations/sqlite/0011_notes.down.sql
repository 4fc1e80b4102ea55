drop table skipped_events;
drop table category_owners;
