-- Parts of replies that came in several texts, until they are joined: each as the gateway brought it. Kept for a day.
create table reply_parts (
    phone_hash  bytea       not null,             -- HMAC-SHA-256
    recipient   text        not null,             -- what was written to
    gateway     text        not null,
    reference   integer     not null,             -- that of the text's parts, and how long it is
    wide        boolean     not null,
    total       smallint    not null,
    sequence    smallint    not null,             -- from 1
    id          uuid        not null,             -- from topic, partition and offset
    callback    bytea       not null,             -- tamtam.callback.v1
    received_at timestamptz not null,
    flushed     boolean     not null default false, -- its text was given up as it was
    primary key (phone_hash, recipient, gateway, reference, wide, total, sequence)
);
create index reply_parts_received on reply_parts (received_at);

-- The last reply to which a keyword's answer went out: a phone gets the same answer once in ten minutes, whatever a
-- gateway repeats and whoever answers automatically on the other side.
create table reply_answers (
    phone_hash bytea       not null,
    keyword    text        not null,
    reply_id   uuid        not null,
    at         timestamptz not null,
    primary key (phone_hash, keyword)
);

-- Replies that a person must look at: they sound as if somebody wanted to be left alone and are no keyword.
create table reply_reviews (
    id          uuid        not null primary key,
    contact_id  text,
    phone_hash  bytea       not null,
    gateway     text        not null,
    text        text        not null,             -- for the person who decides; gone with the decision
    received_at timestamptz not null
);
create index reply_reviews_contact on reply_reviews (contact_id);

-- What an erased contact wrote goes with the contact.
create function reply_reviews_erase() returns trigger language plpgsql as $$
begin
    delete from reply_reviews where contact_id = old.id;
    return null;
end $$;
create trigger contacts_erased after delete on contacts for each row execute function reply_reviews_erase();
