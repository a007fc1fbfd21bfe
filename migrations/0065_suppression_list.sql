-- Who entered a phone where it was no reply (the name of the key, or of the person who signed in); and the STOP that a wider
-- scope lies over: when a block is lifted again, what the phone's owner said still holds.
alter table suppressions
    add column recorded_by text,
    add column stop_source text,
    add column stop_since timestamptz;

-- The list is shown page by page, the newest first.
create index suppressions_since on suppressions (since desc, phone_hash);

-- The campaign of a text that is about to go out: a note of a campaign that was cancelled counts for nothing.
alter table texts_sent add column campaign_id uuid;
