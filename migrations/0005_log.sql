-- The bus on PostgreSQL: an append-only log. Offsets are given out under the partition's head row, so that commit order
-- is offset order (a bare sequence would let a reader pass a record that commits later).

create schema log;

create table log.topics (
    id smallint generated always as identity primary key,
    name text not null unique,
    partitions integer not null check (partitions > 0),
    retention interval not null
);

-- A stretch of time of a topic, and the table partition `log.records_<id>` that holds its records. The open one takes
-- appends; a closed one is dropped when it was closed longer ago than the topic's retention.
create table log.segments (
    id integer generated always as identity primary key,
    topic smallint not null references log.topics,
    opened_at timestamptz not null,
    closed_at timestamptz
);
create index segments_topic on log.segments (topic);

-- Where each segment begins in each partition of its topic.
create table log.starts (
    topic smallint not null,
    partition integer not null,
    segment integer not null references log.segments on delete cascade,
    first_offset bigint not null,
    primary key (topic, partition, segment)
);
create index starts_segment on log.starts (segment);

-- One row a partition: the next offset to give out. Whoever appends holds it until the commit. Room on the page keeps its
-- many updates HOT.
create table log.heads (
    topic smallint not null references log.topics,
    partition integer not null,
    segment integer not null,
    next_offset bigint not null default 0,
    first_offset bigint not null default 0,
    primary key (topic, partition)
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

create table log.records (
    segment integer not null,
    partition integer not null,
    "offset" bigint not null,
    -- ms since 1970, the database's clock
    appended_ms bigint not null,
    -- bytes: a key may hold what `text` cannot
    key bytea not null,
    -- ["name", "value", "name", "value", …] in their order
    headers json not null,
    value bytea not null
) partition by list (segment);

-- A consumer group's place in a partition. `id` is the second key of the advisory lock that its owner holds; `epoch`
-- counts owners, and a commit under an earlier one changes nothing.
create table log.groups (
    id integer generated always as identity primary key,
    name text not null,
    topic smallint not null references log.topics,
    partition integer not null,
    next_offset bigint not null default 0,
    epoch bigint not null default 0,
    committed_at timestamptz,
    unique (name, topic, partition)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- Opens a topic's next segment and closes the one before. The head rows are locked last, so that appends wait little.
create function log.segment_open(the_topic smallint, at timestamptz) returns integer language plpgsql as $$
declare
    opened integer;
begin
    insert into log.segments (topic, opened_at) values (the_topic, at) returning id into opened;
    -- `create … partition of` would lock every reader and writer out; `attach` does not.
    execute format('create table log.records_%1$s (like log.records, constraint segment check (segment = %1$s))', opened);
    execute format('create unique index records_%1$s_offset on log.records_%1$s (partition, "offset")', opened);
    execute format('alter table log.records attach partition log.records_%1$s for values in (%1$s)', opened);
    perform from log.heads where topic = the_topic order by partition for update;
    insert into log.starts (topic, partition, segment, first_offset)
        select topic, partition, opened, next_offset from log.heads where topic = the_topic;
    update log.heads set segment = opened where topic = the_topic;
    update log.segments set closed_at = at where topic = the_topic and closed_at is null and id <> opened;
    return opened;
end
$$;

-- Makes a topic, or gives it more partitions (never fewer) and another retention.
create function log.topic_ensure(the_name text, the_partitions integer, the_retention interval, at timestamptz)
returns void language plpgsql as $$
declare
    the_topic smallint;
    current integer;
begin
    perform pg_advisory_xact_lock(1819240243, 1);
    insert into log.topics as t (name, partitions, retention) values (the_name, the_partitions, the_retention)
        on conflict (name) do update
            set partitions = greatest(t.partitions, excluded.partitions), retention = excluded.retention
        returning id into the_topic;
    select id into current from log.segments where topic = the_topic and closed_at is null;
    if current is null then
        current := log.segment_open(the_topic, at);
    end if;
    with made as (
        insert into log.heads (topic, partition, segment)
            select t.id, number, current
            from log.topics t, generate_series(0, t.partitions - 1) as number
            where t.id = the_topic
            on conflict do nothing
            returning topic, partition
    )
    insert into log.starts (topic, partition, segment, first_offset) select topic, partition, current, 0 from made;
end
$$;

-- Appends records. The first three arrays are one a partition touched: topic, partition, how many. The others are one a
-- record: which of those partitions (from 1), its place among that partition's records (from 0), key, headers, value.
-- The head rows are locked in one order, so that two batches cannot wait for each other.
create function log.append(
    topics smallint[], partitions integer[], counts bigint[],
    slots integer[], places integer[], keys bytea[], headers text[], bodies bytea[]
) returns void language plpgsql as $$
declare
    stamp bigint;
    written bigint;
begin
    perform from log.heads h
        join unnest(topics, partitions) as t (topic, partition) on h.topic = t.topic and h.partition = t.partition
        order by h.topic, h.partition
        for update of h;
    stamp := extract(epoch from clock_timestamp()) * 1000;
    with taken as (
        update log.heads h set next_offset = h.next_offset + t.count
        from unnest(topics, partitions, counts) with ordinality as t (topic, partition, count, slot)
        where h.topic = t.topic and h.partition = t.partition
        returning t.slot, h.partition, h.segment, h.next_offset - t.count as base
    )
    insert into log.records (segment, partition, "offset", appended_ms, key, headers, value)
        select t.segment, t.partition, t.base + r.place, stamp, r.key, r.header::json, r.body
        from unnest(slots, places, keys, headers, bodies) as r (slot, place, key, header, body)
        join taken t on t.slot = r.slot;
    get diagnostics written = row_count;
    if written <> cardinality(slots) then
        raise exception 'log.append: no such topic or partition' using errcode = 'undefined_object';
    end if;
end
$$;

-- Opens new segments where the open one has grown old (an eighth of the retention) and is not empty.
create function log.roll(at timestamptz) returns integer language plpgsql set lock_timeout = '2s' as $$
declare
    old record;
    rolled integer := 0;
begin
    if not pg_try_advisory_xact_lock(1819240243, 1) then
        return 0;
    end if;
    for old in
        select s.topic from log.segments s join log.topics t on t.id = s.topic
        where s.closed_at is null and s.opened_at < at - t.retention / 8
            and exists (
                select from log.starts b join log.heads h on h.topic = b.topic and h.partition = b.partition
                where b.segment = s.id and h.next_offset > b.first_offset)
        order by s.topic
    loop
        perform log.segment_open(old.topic, at);
        rolled := rolled + 1;
    end loop;
    return rolled;
end
$$;

-- Drops one segment that is older than its topic's retention; says whether there was one. The lock on all of
-- `log.records` that dropping takes is asked for briefly: after a refusal the log tries again later.
create function log.retain(at timestamptz) returns boolean language plpgsql set lock_timeout = '200ms' as $$
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
    -- In the order of an append: heads, then records.
    perform from log.heads where topic = old.topic order by partition for update;
    execute format('drop table log.records_%s', old.id);
    delete from log.segments where id = old.id;
    update log.heads h set first_offset = s.first_offset
        from (select b.partition, min(b.first_offset) as first_offset
              from log.starts b where b.topic = old.topic group by b.partition) s
        where h.topic = old.topic and h.partition = s.partition;
    return true;
end
$$;
