-- What a gateway last said of a part, as it came, also when the word is none that we know and nothing follows from it.
alter table message_parts add column code text;
