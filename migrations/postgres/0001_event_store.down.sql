drop schema ms_framework cascade;
