-- Replies that a gateway gave an id to, each with the record on `callbacks` that brought it first: another record with the
-- same id is the same reply brought again, and nothing comes of it. Kept as long as the callbacks are.
create table heard_replies (
    id       uuid        not null primary key,    -- from the gateway, its own id and the sender
    origin   uuid        not null,                -- from topic, partition and offset
    heard_at timestamptz not null
);
create index heard_replies_at on heard_replies (heard_at);
