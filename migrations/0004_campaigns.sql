-- Campaigns: an audience, a template and a time; their expansion in chunks; who did what.

create table campaigns (
    id           uuid        not null primary key,
    parent_id    uuid        references campaigns (id),  -- the recurring campaign that this is one occurrence of
    name         text        not null,
    state        text        not null check (state in ('draft', 'scheduled', 'running', 'paused', 'finished', 'cancelled')),
    audience     text,                            -- a named audience, or
    expression   text        not null,            -- the expression that was launched
    template     text        not null,
    vars         jsonb       not null default '{}',
    at           timestamptz,                     -- when it starts (or starts next); null: at launch
    zone         text,
    recurring    text,                            -- cron, in that zone
    deadline     timestamptz,
    budget_micros bigint,
    control_percent smallint not null default 0 check (control_percent between 0 and 100),
    created_at   timestamptz not null,
    created_by   text        not null,
    launched_at  timestamptz,
    after_contact text       not null default '', -- the expansion's position: the last contact of the last chunk
    chunks       integer     not null default 0,
    planned      bigint      not null default 0,  -- the sum over its chunks
    spent_micros bigint      not null default 0,  -- what the planned messages are estimated to cost, where there is a budget
    expanded_at  timestamptz,                     -- every chunk is planned
    finished_at  timestamptz,
    updated_at   timestamptz not null default now()
);
create index campaigns_active on campaigns (state) where state in ('scheduled', 'running', 'paused');

-- The expansion walks the audience in contact id order. A chunk is committed with its contacts before any of its jobs is
-- on the bus: whoever appends them, however often, appends exactly these. Once done the list is let go.
create table campaign_chunks (
    campaign_id  uuid        not null references campaigns (id),
    number       integer     not null,
    after_contact text       not null,            -- exclusive; '' at the start
    last_contact text        not null,            -- inclusive
    planned      integer     not null default 0,
    contacts     text[],                          -- null when done
    reasons      text[],                          -- beside each contact: why its job is suppressed, or null
    planned_at   timestamptz not null,
    done_at      timestamptz,                     -- its jobs are on the bus
    primary key (campaign_id, number)
);
create index campaign_chunks_open on campaign_chunks (planned_at) where done_at is null;

-- What each (trigger, event) decided to send to a contact: what is emitted again when the event is delivered again, and
-- what `once_per` looks at.
create table trigger_log (
    contact_id   text        not null,
    trigger      text        not null,
    event_source text        not null,
    event_id     text        not null,
    template     text        not null,
    caused_at    timestamptz not null,            -- the event's time
    planned_at   timestamptz not null,
    deadline     timestamptz,
    vars         jsonb       not null default '{}',
    suppress     text,
    primary key (contact_id, trigger, event_source, event_id)
) partition by hash (contact_id);

do $$
begin
    for part in 0..7 loop
        execute format('create table trigger_log_p%s partition of trigger_log for values with (modulus 8, remainder %s)', part, part);
    end loop;
end $$;

-- Who speaks for a phone that several contacts share: the first to be planned.
create table campaign_phones (
    campaign_id uuid not null,
    phone_hash  bytea not null,
    contact_id  text not null,
    primary key (campaign_id, phone_hash)
);

create table campaign_log (
    id          bigint generated always as identity primary key,
    campaign_id uuid        not null,
    at          timestamptz not null,
    by          text        not null,
    action      text        not null,
    detail      text
);
create index campaign_log_campaign on campaign_log (campaign_id);

create function campaigns_changed() returns trigger language plpgsql as $$
begin
    perform pg_notify('tamtam_campaigns', '');
    return null;
end $$;
create trigger campaigns_changed after insert or update or delete on campaigns
    for each statement execute function campaigns_changed();

-- Timers, schedules, quiet hours, retries and parked messages: a record that goes onto its topic when it is due.
-- `id` is deterministic, so that deferring twice is deferring once.
create table deferred (
    id      text        not null primary key,
    due_at  timestamptz,                          -- null: parked until somebody releases it
    parked  text,                                 -- for example campaign:ID
    campaign_id uuid,                             -- the campaign it belongs to, if any
    topic   text        not null,
    key     text        not null,
    headers jsonb       not null,
    value   bytea       not null
);
create index deferred_due on deferred (due_at) where due_at is not null;
create index deferred_parked on deferred (parked) where parked is not null;
create index deferred_campaign on deferred (campaign_id) where campaign_id is not null;
create index deferred_key on deferred (key);      -- erasure
