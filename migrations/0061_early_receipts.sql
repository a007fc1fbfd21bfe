-- A receipt that came before its message's outcome is kept once, with our reference where it bore one: if the outcome turns
-- out to be unknown there is no part that could find it, and the reference does.
alter table callbacks_unmatched add column reference uuid;
alter table callbacks_unmatched add column kept_at timestamptz not null default now();

-- What was kept of late is looked through often, the rest seldom.
create index callbacks_unmatched_kept on callbacks_unmatched (kept_at);
create index callbacks_unmatched_reference on callbacks_unmatched (reference) where reference is not null;
drop index callbacks_unmatched_received;
