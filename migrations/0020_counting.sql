-- What makes counting an audience fast while somebody types it (docs/benchmarks.md has the figures).

-- Names of places and genders stand in an index: an entry must fit a third of a page whatever its length.
update contacts set region = left(region, 100) where length(region) > 100;
update contacts set gender = left(gender, 100) where length(gender) > 100;
-- The narrow questions of nearly every audience, answered from the index alone.
create index contacts_segment on contacts (region, gender, birth_date, id);

-- Everybody who has a history and is no contact, and perhaps some who have become contacts since: whoever counts looks.
-- So who did something is counted from the history alone, without looking up each contact.
create table strangers (
    contact_id text not null primary key
);
insert into strangers
select contact_id from (select distinct contact_id from history) h
where not exists (select from contacts c where c.id = h.contact_id);

-- Properties of events that audiences compare with texts. Each gets an index on the events of its type, made while
-- tamtam runs (store::audience::properties): only what is asked for costs something when events are written.
create table audience_properties (
    id       integer generated always as identity primary key,
    type     text        not null,
    path     text[]      not null,
    asked_at timestamptz not null,                -- about: it is noted once an hour
    built_at timestamptz,                         -- null: not there yet
    unique (type, path)
);

-- What such an index holds: eight bytes, however long the text. Where it agrees, the text itself is compared.
create function audience_key(value text) returns bigint language sql immutable parallel safe
return hashtextextended(value, 0);
