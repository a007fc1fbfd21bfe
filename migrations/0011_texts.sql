-- Which text a phone last got, and from which message: the same text to the same phone within a period is sent once.
-- Neither is in the database, only their hashes. A row is of use as long as the policy looks back.

create table texts_sent (
    phone_hash bytea       not null,              -- HMAC-SHA-256
    text_hash  bytea       not null,              -- SHA-256 over phone_hash and the finished text
    message_id uuid        not null,
    at         timestamptz not null,
    primary key (phone_hash, text_hash)
);
create index texts_sent_at on texts_sent using brin (at);
