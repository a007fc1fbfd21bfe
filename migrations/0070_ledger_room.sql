-- Room for a second version of every row of a page. The messages that one transaction claims lie beside each other, and one
-- transaction moves them on: none of their old versions can be cleared away until it has ended. With 30 % of a page free a
-- third of a batch of 500 found no room beside the row, moved to another page, and wrote its three indexes again.
-- What is there stays as it is; pages that are filled from now on have the room.
do $$
begin
    for part in 0..7 loop
        execute format('alter table messages_p%s set (fillfactor = 50)', part);
    end loop;
end $$;
