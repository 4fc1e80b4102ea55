drop table checkpoints;
drop table parked;
drop table documents;
drop table projection_builds;
drop table log;
