-- The ledger: one row a message, from the first decision on it. The claim on a row precedes every submission.

create table messages (
    contact_id    text        not null,
    message_id    uuid        not null,
    class         smallint    not null,           -- 0 transactional, 1 marketing
    state         smallint    not null,           -- domain::State::code
    reason        text,
    gateway_code  text,                           -- as the gateway said it
    -- the cause
    campaign_id   uuid,
    trigger       text,
    event_source  text,
    event_id      text,
    idempotency_key text,
    -- the text's facts, never the text
    template      text        not null,
    variant       text,
    encoding      text,
    parts         smallint    not null default 0,
    cost_micros   bigint      not null default 0,
    phone_hash    bytea,
    -- the attempt
    gateway       text,
    owner         uuid,                           -- the dispatcher that claimed it
    epoch         bigint,
    attempt       integer     not null default 0,
    -- times
    caused_at     timestamptz not null,
    planned_at    timestamptz not null,
    rendered_at   timestamptz,
    claimed_at    timestamptz,
    accepted_at   timestamptz,
    settled_at    timestamptz,
    primary key (contact_id, message_id)
) partition by hash (contact_id);

do $$
begin
    for part in 0..7 loop
        execute format('create table messages_p%s partition of messages for values with (modulus 8, remainder %s) with (fillfactor = 70)', part, part);
    end loop;
end $$;

create index messages_id on messages (message_id);
create index messages_campaign on messages (campaign_id) where campaign_id is not null;
create index messages_planned on messages using brin (planned_at);

-- One row a part that a gateway took: how its receipts find their message.
create table message_parts (
    gateway    text     not null,
    remote_id  text     not null,                 -- the gateway's id as it came
    match_id   text     not null,                 -- the same, normalised: lower case, zero-stripped
    contact_id text     not null,
    message_id uuid     not null,
    part       smallint not null,
    state      smallint not null,
    at         timestamptz not null,
    primary key (gateway, match_id)
);
create index message_parts_message on message_parts (message_id);

-- Receipts that came before the submit response, or that match nothing: joined when their part appears, shown till then.
create table callbacks_unmatched (
    id          uuid        not null primary key, -- from topic, partition, offset
    gateway     text        not null,
    match_id    text        not null,
    state       smallint    not null,
    code        text,
    at          timestamptz not null,
    received_at timestamptz not null
);
create index callbacks_unmatched_match on callbacks_unmatched (gateway, match_id);
