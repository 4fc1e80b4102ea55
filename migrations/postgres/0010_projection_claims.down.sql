-- What has a U+0000 cannot be held without its other spelling.
update ms_projections.documents
   set data = regexp_replace(regexp_replace(
           data::text, '(?<!\\)((?:\\\\)*)\\u0001\\u0001', '\1\\ufffd', 'g'),
           '(?<!\\)((?:\\\\)*)\\u0001\\u0002', '\1\\u0001', 'g')::jsonb
 where data::text like '%\\u0001%';

update ms_projections.documents
   set id = replace(replace(id, E'\x01\x01', E'\ufffd'), E'\x01\x02', E'\x01')
 where strpos(id, E'\x01') > 0;

update ms_projections.parked
   set id = replace(replace(id, E'\x01\x01', E'\ufffd'), E'\x01\x02', E'\x01'),
       error = replace(replace(error, E'\x01\x01', E'\ufffd'), E'\x01\x02', E'\x01')
 where strpos(id || error, E'\x01') > 0;

drop table ms_projections.projection_notes;

alter table ms_framework.checkpoints
    drop column paused,
    drop column asked,
    drop column heard,
    drop column deaths,
    drop column died_at,
    drop column trying,
    drop column tries;
