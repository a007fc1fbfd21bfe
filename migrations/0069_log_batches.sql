-- The log keeps what an append gives a partition as one row (or some of bounded size), not as a row a record: a row with an
-- index entry costs as much as some dozens of records in one. How a body is made is said in the bus's `packed` module.

create table log.batches (
    segment integer not null,
    partition integer not null,
    -- of its last record: a reader that wants an offset finds its batch by the first last offset at or after it
    last_offset bigint not null,
    records integer not null,
    -- what they take once they are unpacked
    bytes integer not null,
    -- ms since 1970, the database's clock
    appended_ms bigint not null,
    body bytea not null
) partition by list (segment);
-- It is compressed already.
alter table log.batches alter column body set storage external;

-- What is there becomes batches of one record.
do $$
declare
    old integer;
begin
    for old in select id from log.segments order by id loop
        execute format('create table log.batches_%1$s (like log.batches including storage, constraint segment check (segment = %1$s))', old);
        execute format(
            'insert into log.batches_%1$s
             select segment, partition, "offset", 1, 12 + octet_length(key) + octet_length(headers::text) + octet_length(value),
                 appended_ms,
                 ''\x00''::bytea || int4send(octet_length(key)) || key
                     || int4send(octet_length(convert_to(headers::text, ''UTF8''))) || convert_to(headers::text, ''UTF8'')
                     || int4send(octet_length(value)) || value
             from log.records_%1$s', old);
        execute format('create unique index batches_%1$s_offset on log.batches_%1$s (partition, last_offset)', old);
        execute format('alter table log.batches attach partition log.batches_%1$s for values in (%1$s)', old);
    end loop;
end $$;
drop table log.records;

create or replace function log.segment_open(the_topic smallint, at timestamptz) returns integer language plpgsql as $$
declare
    opened integer;
begin
    insert into log.segments (topic, opened_at) values (the_topic, at) returning id into opened;
    -- `create … partition of` would lock every reader and writer out; `attach` does not.
    execute format('create table log.batches_%1$s (like log.batches including storage, constraint segment check (segment = %1$s))', opened);
    execute format('create unique index batches_%1$s_offset on log.batches_%1$s (partition, last_offset)', opened);
    execute format('alter table log.batches attach partition log.batches_%1$s for values in (%1$s)', opened);
    perform from log.heads where topic = the_topic order by partition for update;
    insert into log.starts (topic, partition, segment, first_offset)
        select topic, partition, opened, next_offset from log.heads where topic = the_topic;
    update log.heads set segment = opened where topic = the_topic;
    update log.segments set closed_at = at where topic = the_topic and closed_at is null and id <> opened;
    return opened;
end
$$;

-- Appends records. The first three arrays are one a partition touched: topic, partition, how many records. The others are one
-- a batch: which of those partitions (from 1), the place of its last record among that partition's (from 0), how many
-- records, how many bytes unpacked, body. The head rows are updated in one order, so that two appends cannot wait for each
-- other: `= any (array[…])` is `=` of which the planner does not know that both sides are sorted alike, so there is no plan
-- but to look each up in the order given. One plan is kept: for a few records planning would cost more than appending.
drop function log.append(smallint[], integer[], bigint[], integer[], integer[], bytea[], text[], bytea[]);
create function log.append(
    topics smallint[], partitions integer[], counts bigint[],
    slots integer[], places integer[], records integer[], sizes integer[], bodies bytea[]
) returns void language plpgsql set plan_cache_mode = force_generic_plan as $$
declare
    written bigint;
begin
    with taken as materialized (
        update log.heads h set next_offset = h.next_offset + t.count
        from (select * from unnest(topics, partitions, counts) with ordinality as t (topic, partition, count, slot)
              order by topic, partition) t
        where h.topic = any (array[t.topic]) and h.partition = any (array[t.partition])
        returning t.slot, h.partition, h.segment, h.next_offset - t.count as base
    )
    insert into log.batches (segment, partition, last_offset, records, bytes, appended_ms, body)
        select t.segment, t.partition, t.base + b.place, b.count, b.size,
            (extract(epoch from clock_timestamp()) * 1000)::bigint, b.body
        from taken t
        join unnest(slots, places, records, sizes, bodies) as b (slot, place, count, size, body) on t.slot = b.slot;
    get diagnostics written = row_count;
    if written <> cardinality(slots) then
        raise exception 'log.append: no such topic or partition' using errcode = 'undefined_object';
    end if;
end
$$;

create or replace function log.retain(at timestamptz) returns boolean language plpgsql set lock_timeout = '200ms' as $$
declare
    old record;
begin
    if not pg_try_advisory_xact_lock(1819240243, 1) then
        return false;
    end if;
    select s.id, s.topic into old from log.segments s join log.topics t on t.id = s.topic
        where s.closed_at < at - t.retention order by s.id limit 1;
    if not found then
        return false;
    end if;
    -- In the order of an append: heads, then batches.
    perform from log.heads where topic = old.topic order by partition for update;
    execute format('drop table log.batches_%s', old.id);
    delete from log.segments where id = old.id;
    update log.heads h set first_offset = s.first_offset
        from (select b.partition, min(b.first_offset) as first_offset
              from log.starts b where b.topic = old.topic group by b.partition) s
        where h.topic = old.topic and h.partition = s.partition;
    return true;
end
$$;
