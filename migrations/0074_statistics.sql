-- No plan depends on how the values of these columns are spread: rows are found by their keys, by when they were planned, or
-- by what a report groups by, and those columns keep their statistics. Yet analyze sorted thirty thousand values of each
-- of them, every minute under load and again in each partition: for ten seconds a third of a processor, which messages waited
-- for. A property of an event that an audience asks for has statistics of its own, with its index.
do $$
declare
    unasked constant jsonb := '{
        "messages": ["event_source", "event_id", "idempotency_key", "variant", "encoding", "parts", "cost_micros",
            "phone_hash", "owner", "epoch", "attempt", "caused_at", "rendered_at", "accepted_at", "settled_at", "changed_at",
            "decided_by", "purpose", "traceparent"],
        "message_parts": ["remote_id", "contact_id", "part", "state", "at", "total", "code"],
        "history": ["event_id", "data", "planned"],
        "trigger_log": ["event_id", "template", "caused_at", "deadline", "vars"]
    }';
    place record;
begin
    for place in select t.key as relation, c.value as name from jsonb_each(unasked) t, jsonb_array_elements_text(t.value) c
    loop
        execute format('alter table %I alter column %I set statistics 0', place.relation, place.name);
    end loop;
end $$;
