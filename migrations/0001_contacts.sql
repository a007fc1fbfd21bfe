-- Contacts, what they did, what they consented to, and who must not be written to.
-- Contacts and history are keyed by contact id and hash-partitioned by it, so that they move to a sharded PostgreSQL
-- without a change of query.

create table contacts (
    id                text        not null,
    phone             text,                      -- E.164
    first_name        text,
    last_name         text,
    gender            text,
    birth_date        date,
    city              text,
    region            text,
    postal_code       text,
    language          text,
    time_zone         text,
    marketing_consent boolean,                   -- null: never said
    consent_at        timestamptz,               -- when it was given, where known
    attributes        jsonb       not null default '{}',
    created_at        timestamptz not null default now(),
    updated_at        timestamptz not null default now(),
    primary key (id)
) partition by hash (id);

-- What customers did, once per (contact, source, event id): publishing again is harmless.
create table history (
    contact_id text        not null,
    source     text        not null,
    event_id   text        not null,
    type       text        not null,
    time       timestamptz not null,
    data       jsonb       not null default '{}',
    planned    integer     not null default 0,   -- messages that this event started: the left side of the audit
    primary key (contact_id, source, event_id)
) partition by hash (contact_id);

do $$
begin
    for part in 0..7 loop
        execute format('create table contacts_p%s partition of contacts for values with (modulus 8, remainder %s)', part, part);
        execute format('create table history_p%s partition of history for values with (modulus 8, remainder %s)', part, part);
    end loop;
end $$;

create index contacts_phone on contacts (phone) where phone is not null;
create index history_type_time on history (type, time);

-- Proof of consent: who said what, when, where and in which words (GDPR art. 7.1). Never updated.
create table consent_log (
    id         bigint generated always as identity primary key,
    contact_id text        not null,
    given      boolean     not null,
    purpose    text        not null default 'marketing',
    at         timestamptz not null,
    source     text        not null,              -- import, api, reply, console
    wording    text,
    recorded_by text       not null
);
create index consent_log_contact on consent_log (contact_id);

-- Phones that must not get marketing (STOP), or nothing at all (blocked). By keyed hash, so that an erased contact's
-- opt-out outlives its data and filters every later import.
create table suppressions (
    phone_hash bytea       not null primary key,  -- HMAC-SHA-256
    scope      text        not null check (scope in ('marketing', 'all')),
    source     text        not null,              -- reply, api, console, import, erased
    since      timestamptz not null
);

-- Secrets of this installation, such as the key of the phone hash.
create table installation (
    name  text  not null primary key,
    value bytea not null
);
