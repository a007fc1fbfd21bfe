-- Short links: the address that a code stands for, and whose message it was in. A link is kept before its text goes out,
-- and nothing is redirected to but what is kept here.

create table short_links (
    code       text        not null primary key,  -- 11 letters and digits: a hash of message and address
    url        text        not null,
    contact_id text        not null,
    message_id uuid        not null,
    created_at timestamptz not null
);
create index short_links_contact on short_links (contact_id);
create index short_links_created on short_links using brin (created_at);
