-- Dead letters that were put back onto their topic: replaying again must not do it twice. The id is the dead letter's own,
-- made from its topic, partition and offset. A row is written in the transaction that appends.

create table dead_letters_replayed (
    id          uuid        not null primary key,
    replayed_at timestamptz not null,
    replayed_by text        not null
);
