-- A receipt without a part is shown as the gateway said it, also where its word is none that we know and it has no state.
alter table callbacks_unmatched alter column state drop not null;
alter table callbacks_unmatched add column remote_id text;   -- the id as it came; null: kept before there was this column

-- Of the forms that its id may have, the likeliest is the first: an id as it came goes before the same in another base.
alter table callbacks_unmatched add column place smallint not null default 0;
update callbacks_unmatched u set place = f.place from (
    select id, match_id, row_number() over (partition by id order by match_id) - 1 as place from callbacks_unmatched
) f where u.id = f.id and u.match_id = f.match_id;

-- `reference` is kept wherever a receipt bore one: it belongs to no other message. `waits`: it may settle that message,
-- which has no part that could find the receipt.
alter table callbacks_unmatched add column waits boolean not null default false;
update callbacks_unmatched set waits = true where reference is not null;
drop index callbacks_unmatched_reference;
create index callbacks_unmatched_waits on callbacks_unmatched (reference) where waits;
