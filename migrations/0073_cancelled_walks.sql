-- The chunks of campaigns whose walk is not at its end: few, and found without reading the others.
create index campaign_chunks_walked on campaign_chunks (campaign_id) where phones is not null;
comment on column campaign_chunks.phones is
    'the first 12 bytes of the keyed hash of each phone that one of the contacts speaks for; null once the walk is at its end or the campaign is cancelled';
