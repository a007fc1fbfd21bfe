-- One number that changes with every change of resources: a batch asks for it with one row's reading, and so works with
-- whatever was applied before its records were published.

create table resource_generation (
    one        boolean not null primary key default true check (one),
    generation bigint  not null
);
insert into resource_generation (generation) values (1);

create or replace function resources_changed() returns trigger language plpgsql as $$
begin
    update resource_generation set generation = generation + 1;
    perform pg_notify('tamtam_resources', '');
    return null;
end $$;
