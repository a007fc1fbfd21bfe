-- What was put off because its gateway has more to send than its rate allows: with the gateway, so that it comes back as
-- soon as that has nothing left, whatever its rate was thought to be.

alter table deferred add column gateway text;
create index deferred_gateway on deferred (gateway, due_at) where gateway is not null;
