-- A receipt that waits is kept once a form of its id, and known by the form's place. With the form in the primary key there
-- were two indexes to find one by: a plan that was made while the table was almost empty read all of the primary key for each
-- id that was looked for, also when there had come to be hundreds of thousands.
alter table callbacks_unmatched drop constraint callbacks_unmatched_pkey;
alter table callbacks_unmatched add primary key (id, place);
