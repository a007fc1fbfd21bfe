-- What people configure: gateways, templates, audiences, triggers, policy (`tamtam apply`), and who may call.

create table resources (
    kind       text        not null,              -- gateway, template, audience, trigger, policy
    name       text        not null,
    version    bigint      not null,              -- grows with each change
    body       jsonb       not null,
    updated_at timestamptz not null default now(),
    updated_by text        not null,
    primary key (kind, name)
);

create function resources_changed() returns trigger language plpgsql as $$
begin
    perform pg_notify('tamtam_resources', '');
    return null;
end $$;
create trigger resources_changed after insert or update or delete on resources
    for each statement execute function resources_changed();

create table api_keys (
    id         uuid        not null primary key,
    name       text        not null unique,
    hash       bytea       not null unique,       -- SHA-256 of the key: it has 256 random bits, no salt is needed
    role       text        not null check (role in ('admin', 'campaigns', 'events', 'read')),
    created_at timestamptz not null default now(),
    revoked_at timestamptz
);
