-- Contacts and ten events for each, the same every time: psql -v contacts=1000000 -v seed=7 -f audience.sql
-- A year of five types of events up to now, so that of a million contacts about 390,000 bought within 90 days. Indexes are
-- taken away while the rows are written and made again as the migrations make them.
set maintenance_work_mem = '512MB';
set synchronous_commit = off;

-- From 0 up to 1, by seed, row and question.
create function pg_temp.dice(seed int, who bigint, what int) returns double precision language sql immutable parallel safe
return (hashint8extended(who * 64 + what, seed) & 2147483647) / 2147483648.0;

alter table contacts drop constraint contacts_pkey;
drop index contacts_phone, contacts_segment;
insert into contacts (id, phone, first_name, last_name, gender, birth_date, city, region, postal_code, language, marketing_consent, attributes)
select n::text, '+262692' || lpad((n % 1000000)::text, 6, '0'), 'Prénom ' || n % 997, 'Nom ' || n % 4999,
       case when pg_temp.dice(:seed, n, 1) < 0.48 then 'female' when pg_temp.dice(:seed, n, 1) < 0.96 then 'male' end,
       current_date - 5000 - (pg_temp.dice(:seed, n, 2) * 24800)::int,
       'Ville ' || floor(pg_temp.dice(:seed, n, 4) * 24), (array['north', 'south', 'east', 'west'])[1 + floor(pg_temp.dice(:seed, n, 3) * 4)::int],
       (97400 + floor(pg_temp.dice(:seed, n, 4) * 90))::text, 'fr', pg_temp.dice(:seed, n, 5) < 0.8,
       jsonb_build_object('points', floor(pg_temp.dice(:seed, n, 6) * 1000))
from generate_series(1, :contacts) n;
alter table contacts add primary key (id);
create index contacts_phone on contacts (phone) where phone is not null;
create index contacts_segment on contacts (region, gender, birth_date, id);

alter table history drop constraint history_pkey;
drop index history_type_time_contact;
insert into history (contact_id, source, event_id, type, time, data)
select (1 + floor(pg_temp.dice(:seed, n, 10) * :contacts))::bigint::text, 'shop', 'e' || n,
       (array['order.placed', 'cart.updated', 'page.viewed', 'message.opened', 'visit.paid'])[1 + floor(pg_temp.dice(:seed, n, 11) * 5)::int],
       now() - make_interval(secs => (1 - n / (:contacts * 10.0)) * 365 * 86400),
       jsonb_build_object('category', (array['shoes', 'dresses', 'bags', 'toys', 'books', 'garden', 'food', 'phones', 'music', 'sports'])
                                      [1 + floor(pg_temp.dice(:seed, n, 13) * 10)::int],
                          'amount', round((5 + pg_temp.dice(:seed, n, 14) * 195)::numeric, 2))
from generate_series(1, :contacts * 10) n;
alter table history add primary key (contact_id, source, event_id);
create index history_type_time_contact on history (type, time, contact_id);
vacuum (analyze) contacts;
vacuum (analyze) history;
