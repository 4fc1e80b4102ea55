drop table ms_framework.skipped_events;
drop table ms_framework.category_owners;
