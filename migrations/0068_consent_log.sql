-- A contact's proofs are read by contact, the latest first: one index serves that and tells the rows apart. Two cost every
-- imported row one more.
alter table consent_log drop constraint consent_log_pkey;
drop index consent_log_contact;
alter table consent_log add primary key (contact_id, id);
