-- A trigger's waiting timers, found when its wait is edited: their ids are `timer:TRIGGER:…`, and only timers wait to go
-- onto `events`.
create index deferred_timers on deferred (split_part(id, ':', 2)) where topic = 'events';

-- The occurrences of a recurring campaign, which are paused and cancelled with it.
create index campaigns_parent on campaigns (parent_id) where parent_id is not null;
