"""The worker that people write by hand: a PostgreSQL queue with SKIP LOCKED, an HTTP post for each message.

worker.py DATABASE-URL HTTP-URL COUNT [WORKERS]: fills the queue, says `go`, and sends it.
Each worker takes one message in a transaction, posts it and marks it sent: nothing is lost when it dies.
"""

import asyncio
import sys
from urllib.parse import parse_qs, urlsplit

import aiohttp
import asyncpg

TAKE = """
update queue set state = 'sent', sent_at = now() where id = (
    select id from queue where state = 'queued' order by id limit 1 for update skip locked
) returning id, phone, text
"""


async def main(database: str, url: str, count: int, workers: int) -> None:
    # By the same way as tamtam: asyncpg does not look at a socket's directory where a host stands before it.
    parts = urlsplit(database)
    directory = parse_qs(parts.query).get("host", [None])[0]
    pool = await asyncpg.create_pool(
        database, host=directory, port=parts.port, min_size=workers, max_size=workers
    )
    await pool.execute(
        """drop table if exists queue;
        create table queue (id bigserial primary key, phone text not null, text text not null,
            state text not null default 'queued', sent_at timestamptz);
        create index queue_queued on queue (id) where state = 'queued'"""
    )
    await pool.execute(
        """insert into queue (phone, text) select '+262692' || lpad((n % 1000000)::text, 6, '0'),
            'Commande ' || n || ': en route, elle arrive demain avant midi.' from generate_series(1, $1::bigint) n""",
        count,
    )
    await pool.execute("analyze queue")

    async def work(session: aiohttp.ClientSession) -> None:
        async with pool.acquire() as connection:
            while True:
                async with connection.transaction():
                    row = await connection.fetchrow(TAKE)
                    if row is None:
                        return
                    body = {"api_key": "bench", "from": "BOUTIQUE", "to": row["phone"][1:], "text": row["text"]}
                    async with session.post(url, json=body) as answer:
                        answer.raise_for_status()
                        await answer.read()

    print("go", flush=True)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=workers)) as session:
        await asyncio.gather(*(work(session) for _ in range(workers)))
    await pool.close()


if __name__ == "__main__":
    arguments = sys.argv[1:]
    asyncio.run(main(arguments[0], arguments[1], int(arguments[2]), int(arguments[3]) if len(arguments) > 3 else 32))
