drop table ms_framework.timers;
