-- Campaigns: an audience, a template and a time; their expansion in chunks; who did what.

create table campaigns (
    id           uuid        not null primary key,
    name         text        not null,
    state        text        not null check (state in ('draft', 'scheduled', 'running', 'paused', 'finished', 'cancelled')),
    audience     text,                            -- a named audience, or
    expression   text        not null,            -- the expression that was launched
    template     text        not null,
    vars         jsonb       not null default '{}',
    at           timestamptz,                     -- null: at launch
    zone         text,
    recurring    text,                            -- cron
    deadline     timestamptz,
    budget_micros bigint,
    control_percent smallint not null default 0,
    created_at   timestamptz not null,
    launched_at  timestamptz,
    expanded_at  timestamptz,                     -- every chunk is planned
    finished_at  timestamptz,
    updated_at   timestamptz not null default now()
);

-- The expansion walks the contacts in id order; a chunk is committed with its end, so it resumes at the exact contact.
create table campaign_chunks (
    campaign_id  uuid        not null references campaigns (id),
    number       integer     not null,
    after_contact text       not null,            -- exclusive; '' at the start
    last_contact text,                            -- inclusive; null until planned
    planned      integer     not null default 0,
    done_at      timestamptz,
    primary key (campaign_id, number)
);

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
    topic   text        not null,
    key     text        not null,
    headers jsonb       not null,
    value   bytea       not null
);
create index deferred_due on deferred (due_at) where due_at is not null;
create index deferred_parked on deferred (parked) where parked is not null;
