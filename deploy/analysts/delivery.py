#!/usr/bin/env python3
"""What became of messages, by DuckDB, from Kafka.

    delivery.py --brokers localhost:9092 [--prefix tamtam.] [--conversions order.placed] [--days 7]

Prints one JSON object: delivery rate by hour and gateway, percentiles of the time to delivery in seconds, and for each
campaign how many of those it planned did the event within the days, and how many of its control group.
"""

import argparse
import csv
import json
import sys
import tempfile

import duckdb

RECEIPT = ["id", "message_id", "contact_id", "campaign_id", "gateway", "state", "reason", "at", "planned_at", "accepted_at"]
EVENT = ["contact_id", "time"]


def records(brokers, topic):
    """Every record that is on a topic now, once for each ce_id: (headers, value)."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "delivery.py", "enable.auto.commit": False, "enable.partition.eof": True})
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        seen, ended = set(), set()
        while len(ended) < len(partitions):
            message = consumer.poll(30)
            if message is None:
                raise SystemExit(f"{topic}: the broker does not answer")
            if message.error():
                if message.error().name() != "_PARTITION_EOF":
                    raise SystemExit(f"{topic}: {message.error()}")
                ended.add(message.partition())
                continue
            headers = {name: value.decode() for name, value in message.headers() or [] if value is not None}
            if headers.get("ce_id") not in seen:
                seen.add(headers.get("ce_id"))
                yield headers, message.value()
    finally:
        consumer.close()


def receipt(headers, value):
    data = json.loads(value)
    data["campaign_id"] = data["cause"].get("campaign_id")
    data["id"] = headers["ce_id"]
    return [data.get(column) for column in RECEIPT]


def load(database, table, columns, rows):
    """Through a CSV file: DuckDB reads one far faster than rows one by one."""
    with tempfile.NamedTemporaryFile("w", suffix=".csv", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
        file.flush()
        names = ", ".join(f"'{column}': '{'TIMESTAMPTZ' if column == 'time' or column.endswith('at') else 'VARCHAR'}'" for column in columns)
        database.execute(f"create table {table} as select * from read_csv('{file.name}', header = true, columns = {{{names}}})")


def rows(database, query, parameters=()):
    result = database.execute(query, parameters)
    names = [column[0] for column in result.description]
    return [dict(zip(names, row)) for row in result.fetchall()]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--brokers", required=True)
    arguments.add_argument("--prefix", default="tamtam.")
    arguments.add_argument("--conversions", default="order.placed")
    arguments.add_argument("--days", type=int, default=7)
    options = arguments.parse_args()

    database = duckdb.connect()
    database.execute("set timezone = 'UTC'")
    receipts = (receipt(*record) for record in records(options.brokers, options.prefix + "receipts"))
    load(database, "receipts", RECEIPT, receipts)
    report = {
        "by_hour_and_gateway": rows(
            database,
            """select strftime(date_trunc('hour', accepted_at), '%Y-%m-%dT%H:00Z') as hour, gateway,
                   count(distinct message_id) as taken,
                   count(distinct message_id) filter (where state = 'delivered') as delivered,
                   delivered / taken as rate
               from receipts where accepted_at is not null group by all order by all""",
        ),
        "seconds_to_delivery": rows(
            database,
            """select gateway, quantile_cont(seconds, 0.5) as p50, quantile_cont(seconds, 0.95) as p95, quantile_cont(seconds, 0.99) as p99
               from (select gateway, epoch("at") - epoch(accepted_at) as seconds from receipts where state = 'delivered' and accepted_at is not null)
               group by gateway order by gateway""",
        ),
    }
    events = (
        [headers.get("ce_subject"), headers.get("ce_time")]
        for headers, _ in records(options.brokers, options.prefix + "events")
        if headers.get("ce_type") == options.conversions
    )
    load(database, "done", EVENT, events)
    report["campaign_conversions"] = rows(
        database,
        """with planned as (
               select campaign_id, contact_id, min(planned_at) as planned_at, bool_or(reason = 'control-group') as control
               from receipts where campaign_id is not null group by all
           )
           select campaign_id, coalesce(control, false) as control, count(*) as contacts,
               count(*) filter (where exists (from done d where d.contact_id = p.contact_id
                   and d.time >= p.planned_at and d.time < p.planned_at + to_days(?))) as converted
           from planned p group by all order by all""",
        [options.days],
    )
    json.dump(report, sys.stdout)
    print()


if __name__ == "__main__":
    main()
