-- Who speaks for a phone that several contacts of a campaign share stands with the chunk, not in a row a phone, which cost a
-- campaign more than its chunks and jobs together. A chunk keeps its contacts once its jobs are on the bus: they say whom
-- the campaign planned for until the ledger does.
alter table campaign_chunks add column phones bytea;
-- Hashes: nothing to compress.
alter table campaign_chunks alter column phones set storage external;
comment on column campaign_chunks.phones is
    'the first 12 bytes of the keyed hash of each phone that one of the contacts speaks for; null once the walk is at its end';

-- What is there moves along: the contacts for all, the phones where somebody still walks.
create index campaign_chunks_move on campaign_chunks (campaign_id, after_contact);
with placed as (
    select k.number, p.*
    from campaign_phones p
    cross join lateral (
        select number from campaign_chunks k
        where k.campaign_id = p.campaign_id and k.after_contact < p.contact_id
        order by k.after_contact desc limit 1) k
), chunk as (
    select campaign_id, number, array_agg(contact_id order by contact_id) as contacts,
        string_agg(substring(phone_hash for 12), '') as phones
    from placed group by campaign_id, number
)
update campaign_chunks k
set contacts = coalesce(k.contacts, chunk.contacts),
    phones = case when c.expanded_at is null then chunk.phones end
from chunk join campaigns c on c.id = chunk.campaign_id
where k.campaign_id = chunk.campaign_id and k.number = chunk.number;
drop index campaign_chunks_move;
drop table campaign_phones;
