-- Analyze sorted thirty thousand values of every column, every minute under load and again in each partition: for ten seconds
-- a third of a processor, which messages waited for. No plan asks about most columns: rows are found by their keys and causes,
-- by their times, or by what a report groups by. Those keep their statistics, of a third of the rows where plans only look
-- rows up. The history's are as they were, for audiences; a property of an event that an audience asks for has statistics of
-- its own, with its index.
do $$
declare
    unasked constant jsonb := '{
        "messages": ["idempotency_key", "variant", "encoding", "parts", "cost_micros", "phone_hash", "owner", "epoch", "attempt",
            "caused_at", "rendered_at", "settled_at", "changed_at", "decided_by", "purpose", "traceparent"],
        "message_parts": ["remote_id", "contact_id", "part", "state", "at", "total", "code"],
        "history": ["event_id", "data", "planned"],
        "trigger_log": ["template", "caused_at", "deadline", "vars"]
    }';
    looked_up constant text[] := array['messages', 'message_parts', 'trigger_log'];
    place record;
begin
    for place in
        select a.attrelid::regclass as relation, a.attname as name, unasked->t.key ? a.attname as is_unasked,
            t.key = any(looked_up) as is_looked_up
        from jsonb_each(unasked) t
            join pg_attribute a on a.attrelid = t.key::regclass and a.attnum > 0 and not a.attisdropped
    loop
        -- The default is a hundred, of thirty thousand rows.
        if place.is_unasked then
            execute format('alter table %s alter column %I set statistics 0', place.relation, place.name);
        elsif place.is_looked_up then
            execute format('alter table %s alter column %I set statistics 30', place.relation, place.name);
        end if;
    end loop;
end $$;
