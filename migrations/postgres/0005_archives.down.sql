drop table ms_framework.archives;
