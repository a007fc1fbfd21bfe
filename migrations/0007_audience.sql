-- How the audience language reads a value (domain::audience, "What holds"): null where the value is not set, or is none
-- of the kind asked for. One expression each, so that PostgreSQL inlines them.

create function audience_text(value jsonb) returns text language sql immutable parallel safe
return case jsonb_typeof(value)
    when 'string' then value #>> '{}'
    when 'number' then trim_scale(value::numeric)::text
    when 'boolean' then value #>> '{}'
end;

create function audience_number(value text) returns numeric language sql immutable parallel safe
return case when value ~ '^-?[0-9]{1,18}(\.[0-9]{1,9})?$' then value::numeric end;

create function audience_number(value jsonb) returns numeric language sql immutable parallel safe
return case jsonb_typeof(value)
    when 'number' then value::numeric
    when 'string' then audience_number(value #>> '{}')
end;

-- The date that a text begins with, as text.
create function audience_date(value text) returns text language sql immutable parallel safe
return case
    when value ~ '^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])($|[T ])' then left(value, 10)
end;

create function audience_date(value jsonb) returns text language sql immutable parallel safe
return case jsonb_typeof(value) when 'string' then audience_date(value #>> '{}') end;

-- `did TYPE within …` is answered from the index alone where it has no filter.
create index history_type_time_contact on history (type, time, contact_id);
drop index history_type_time;
