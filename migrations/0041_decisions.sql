-- By which rules a message was last decided on ("policy 7, territories 2026-11-24"); the rule itself is in `reason`, the
-- clock in `changed_at` (of a message that went on: `claimed_at`).
alter table messages add column decided_by text;

-- How many messages were claimed to a prefix in an hour (against SMS pumping), for the prefixes that the policy limits. A
-- row with `alarmed_at` is the record of an alarm: the limit was passed in that hour, and so many were refused.
create table destination_hours (
    prefix     text        not null,
    hour       timestamptz not null,              -- its beginning, UTC
    sent       integer     not null default 0,
    refused    integer     not null default 0,
    per_hour   integer     not null,              -- the limit as it was
    alarmed_at timestamptz,
    primary key (prefix, hour)
);
