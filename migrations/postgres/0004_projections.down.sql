drop schema ms_projections cascade;
delete from ms_framework.checkpoints;
