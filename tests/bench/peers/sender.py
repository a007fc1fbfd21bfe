"""A bare asyncio sender without any durability: sender.py HTTP-URL COUNT. Says `go`, and sends."""

import asyncio
import sys

import aiohttp

CONNECTIONS = 64


async def main(url: str, count: int) -> None:
    numbers = iter(range(count))

    async def work(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            body = {
                "api_key": "bench",
                "from": "BOUTIQUE",
                "to": f"262692{number % 1_000_000:06}",
                "text": f"Commande {number}: en route, elle arrive demain avant midi.",
            }
            async with session.post(url, json=body) as answer:
                answer.raise_for_status()
                await answer.read()

    print("go", flush=True)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS)) as session:
        await asyncio.gather(*(work(session) for _ in range(CONNECTIONS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
