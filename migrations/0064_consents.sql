-- Consent by purpose: what a contact said of other purposes than `marketing`, which keeps its two columns, as
-- {purpose: false, or true, or the time when it was given}.
alter table contacts add column consents jsonb not null default '{}';

-- Two clocks of a proof: `at` is when it was said, `recorded_at` when we heard of it (null: before this column was there).
alter table consent_log add column recorded_at timestamptz;

-- What a message's contact must have consented to; null: `marketing`, or nothing (transactional). Caps count by it.
alter table messages add column purpose text;
