-- The bus on PostgreSQL: an append-only log. Offsets are given out under the partition's head row, so that commit order
-- is offset order (a bare sequence would let a reader pass a record that commits later).

create schema log;
