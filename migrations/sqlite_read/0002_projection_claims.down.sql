drop table projection_notes;

alter table checkpoints drop column paused;
alter table checkpoints drop column asked;
alter table checkpoints drop column heard;
alter table checkpoints drop column deaths;
alter table checkpoints drop column died_at;
alter table checkpoints drop column trying;
alter table checkpoints drop column tries;
