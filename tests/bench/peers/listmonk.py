"""A campaign of listmonk over its HTTP messenger: listmonk.py SOURCE DATABASE-URL HTTP-URL RECIPIENTS.

Makes a database of its own beside DATABASE-URL's, with as many subscribers, starts listmonk, says `go PID`, launches the
campaign, and runs until its standard input closes. Its concurrency, rate and batch are those with which it is fastest (as
shipped it sends 74 messages a second); all else is as its installer sets it.
"""

import asyncio
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

import aiohttp
import asyncpg

PROGRAM = pathlib.Path(__file__).resolve().parents[3] / ".cache/peers/listmonk"
DATABASE = "listmonk"
SETTINGS = {"app.concurrency": 10, "app.message_rate": 50000, "app.batch_size": 10000, "app.check_updates": False}
MESSENGER = {"uuid": "7e1d1ac4-0b0c-4f0c-9d6c-3f2a35a4f2f1", "enabled": True, "name": "bench", "username": "", "password": "",
             "max_conns": 25, "timeout": "5s", "max_msg_retries": 2}
TEXT = "{{ .Subscriber.FirstName }}, -20% sur tout dans votre boutique."


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


async def prepare(url: str, gateway: str, recipients: int) -> int:
    """Its settings and its subscribers, all on one list: the list's id."""
    connection = await asyncpg.connect(url)
    for key, value in (SETTINGS | {"messengers": [MESSENGER | {"root_url": gateway}]}).items():
        done = await connection.execute("update settings set value = $2 where key = $1", key, json.dumps(value))
        assert done == "UPDATE 1", f"listmonk has no setting {key}"
    await connection.execute("truncate subscribers cascade")
    await connection.execute(
        """insert into subscribers (uuid, email, name, attribs)
           select gen_random_uuid(), 'c' || n || '@example.com', 'Ana ' || n,
               jsonb_build_object('phone', '+262692' || lpad(n::text, 6, '0')) from generate_series(0, $1::int - 1) n""",
        recipients,
    )
    chosen = await connection.fetchval("select min(id) from lists where optin = 'single'")
    await connection.execute(
        "insert into subscriber_lists (subscriber_id, list_id, status) select id, $1, 'confirmed' from subscribers", chosen
    )
    # Outside a transaction, one by one.
    await connection.execute("vacuum analyze subscribers")
    await connection.execute("vacuum analyze subscriber_lists")
    await connection.close()
    return chosen


async def launch(address: str, token: str, chosen: int, pid: int, started: float) -> None:
    headers = {"Authorization": f"token bench:{token}"}
    async with aiohttp.ClientSession(f"http://{address}", headers=headers, raise_for_status=True) as session:
        for _ in range(300):
            try:
                async with session.get("/health"):
                    break
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.1)
        # Without one of its own it wraps the text into the HTML of its newsletter.
        body = {"name": "bench", "type": "campaign", "body": '{{ template "content" . }}'}
        async with session.post("/api/templates", json=body) as answer:
            template = (await answer.json())["data"]["id"]
        body = {"name": "bench", "subject": "bench", "lists": [chosen], "type": "regular", "content_type": "plain",
                "messenger": "bench", "from_email": "BOUTIQUE <boutique@example.com>", "body": TEXT, "template_id": template}
        async with session.post("/api/campaigns", json=body) as answer:
            campaign = (await answer.json())["data"]["id"]
        # It looks for what was launched every five seconds from its start on: halfway is what a launch waits on average.
        await asyncio.sleep((2.5 - (time.monotonic() - started)) % 5)
        print(f"go {pid}", flush=True)
        async with session.put(f"/api/campaigns/{campaign}/status", json={"status": "running"}):
            pass


async def main(source: str, url: str, gateway: str, recipients: int) -> None:
    parts = urllib.parse.urlsplit(url)
    connection = await asyncpg.connect(url)
    await connection.execute(f"drop database if exists {DATABASE} with (force)")
    await connection.execute(f"create database {DATABASE}")
    await connection.close()
    with tempfile.TemporaryDirectory() as directory:
        address = f"127.0.0.1:{free_port()}"
        pathlib.Path(directory, "config.toml").write_text(
            f'[app]\naddress = "{address}"\n[db]\nhost = "{parts.hostname}"\nport = {parts.port}\nuser = "{parts.username}"\n'
            f'password = "{parts.password or ""}"\ndatabase = "{DATABASE}"\nssl_mode = "disable"\n'
            'max_open = 25\nmax_idle = 25\nmax_lifetime = "300s"\n'
        )
        # What starts with LISTMONK_ is a setting to it.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LISTMONK_")}
        command = [PROGRAM, "--static-dir", f"{source}/static", "--i18n-dir", f"{source}/i18n"]
        users = {"LISTMONK_ADMIN_USER": "admin", "LISTMONK_ADMIN_PASSWORD": "bench-bench", "LISTMONK_ADMIN_API_USER": "bench"}
        installed = subprocess.run([*command, "--install", "--yes"], cwd=directory, env=environment | users, text=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        token = re.search(r'API_TOKEN="(\w+)"', installed.stderr)
        if installed.returncode != 0 or token is None:
            sys.exit(f"listmonk --install failed:\n{installed.stdout}{installed.stderr}")
        chosen = await prepare(parts._replace(path=f"/{DATABASE}").geturl(), gateway, recipients)
        with open(f"{directory}/log", "w") as log:
            started = time.monotonic()
            listmonk = subprocess.Popen(command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            await launch(address, token[1], chosen, listmonk.pid, started)
            await asyncio.to_thread(sys.stdin.read)
        except BaseException:
            print(pathlib.Path(directory, "log").read_text()[-4000:], file=sys.stderr)
            raise
        finally:
            listmonk.terminate()
            listmonk.wait()


if __name__ == "__main__":
    arguments = sys.argv[1:]
    asyncio.run(main(arguments[0], arguments[1], arguments[2], int(arguments[3])))
