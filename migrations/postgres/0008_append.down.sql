-- An older program needs the rows to be right.
select ms_framework.settle(9223372036854775807 / 2);
drop function ms_framework.settle(bigint);
drop index ms_framework.command_results_at;
