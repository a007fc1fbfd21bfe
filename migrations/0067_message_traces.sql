-- Where a message's way is traced (W3C `traceparent` of its dispatcher's span): what its gateway reports goes on in it.
-- Absent for the many that nobody traces, which costs them nothing.
alter table messages add column traceparent text;
