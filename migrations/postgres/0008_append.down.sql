-- An older program needs the rows to be right.
select ms_framework.settle(4611686018427387903);
drop function ms_framework.settle(bigint);
drop table ms_framework.category_parts;
alter table ms_framework.store_head drop column parts_from;
alter table ms_framework.store_head drop column parts_to;
drop index ms_framework.command_results_at;
