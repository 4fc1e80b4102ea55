drop table snapshots;
drop table position_marks;
alter table streams drop column status;
alter table streams drop column category;
