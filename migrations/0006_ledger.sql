-- When a message reached the state it is in: the time on its receipt, also when the receipt is made again.
alter table messages add column changed_at timestamptz;
update messages set changed_at = coalesce(settled_at, accepted_at, claimed_at, rendered_at, planned_at);
alter table messages alter column changed_at set not null;

-- How many parts the message was taken in: it is delivered when that many are.
alter table message_parts add column total smallint not null default 1;

-- One callback may stand for an id in several spellings (decimal, hexadecimal): a row each.
alter table callbacks_unmatched drop constraint callbacks_unmatched_pkey;
alter table callbacks_unmatched add primary key (id, match_id);
create index callbacks_unmatched_received on callbacks_unmatched (received_at);
