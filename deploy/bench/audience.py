"""Counts two audiences on 100,000 and on 1,000,000 contacts with ten events each: by tamtam over HTTP, by SQL written by
hand on the same database, and by DuckDB on the same rows. Then a campaign is expanded and a table imported.

Each figure is the median of several runs after one that warms up. PostgreSQL runs with its own defaults for durability.
The tables go into docs/benchmarks.md between its marks; `--contacts N,N` measures other sizes and prints only.
"""

import glob, json, os, pathlib, pwd, re, shutil, socket, statistics, subprocess, sys, time, urllib.parse, urllib.request

import duckdb

TAMTAM = "target/release/tamtam"
DIRECTORY = pathlib.Path("/var/tmp/tamtam-bench-audience")
KEY = "tt_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
RUNS = 9
NARROW = (
    'gender = "female" and age < 30 and region = "north" and did order.placed(category = "shoes") within 30 days'
)
BROAD = "did order.placed within 90 days"
BY_HAND = {
    NARROW: """select count(*) from contacts c where gender = 'female' and region = 'north'
        and birth_date > now() at time zone 'UTC' - interval '30 years' and exists (select from history h
            where h.contact_id = c.id and type = 'order.placed' and data->>'category' = 'shoes' and time >= now() - interval '30 days')""",
    BROAD: """select count(*) from contacts c where exists (select from history h
        where h.contact_id = c.id and type = 'order.placed' and time >= now() - interval '90 days')""",
}
DUCKDB = {
    NARROW: BY_HAND[NARROW]
    .replace("now() at time zone 'UTC'", "current_date")
    .replace("data->>'category'", "category")
    .replace("(select from", "(select 1 from"),
    BROAD: BY_HAND[BROAD].replace("(select from", "(select 1 from"),
}


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Postgres:
    """A cluster of its own, as PostgreSQL makes it, but for its memory (as `tamtam up` sets it)."""

    def __init__(self):
        self.programs = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
        self.user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        shutil.rmtree(DIRECTORY, ignore_errors=True)
        DIRECTORY.mkdir(mode=0o755)
        shutil.chown(DIRECTORY, self.user)
        self.port = free_port()
        self.run("initdb", "-U", "tamtam", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8",
                 "--lc-collate=C")
        settings = f"-c port={self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        settings += " -c max_connections=200 -c max_wal_size=2GB -c shared_buffers=1GB"
        self.run("pg_ctl", "start", "--wait", "-l", f"{DIRECTORY}/log", "-o", settings)

    def run(self, program, *arguments):
        subprocess.run([f"{self.programs}/{program}", "-D", f"{DIRECTORY}/cluster", *arguments], check=True, cwd="/",
                       user=self.user, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)

    def psql(self, database, *arguments):
        command = [f"{self.programs}/psql", "-qAtX", "-v", "ON_ERROR_STOP=1", self.url(database), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def url(self, database):
        return f"postgres://tamtam@127.0.0.1:{self.port}/{database}"

    def stop(self):
        self.run("pg_ctl", "stop", "--wait", "--mode=immediate")
        shutil.rmtree(DIRECTORY, ignore_errors=True)


class Role:
    def __init__(self, role, url):
        environment = os.environ | {"TAMTAM__ADMIN__KEY": KEY}
        self.process = subprocess.Popen([TAMTAM, role, "--free-ports", "--database", url], env=environment,
                                        stdout=subprocess.PIPE, stderr=open(f"{DIRECTORY}/{role}.log", "w"), text=True)
        self.ready = dict(part.split("=", 1) for part in self.process.stdout.readline().split() if "=" in part)

    def stop(self):
        self.process.terminate()
        self.process.wait()


def median(once):
    once()
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        answer = once()
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times), answer


def measure(postgres, contacts):
    database = f"bench{contacts}"
    postgres.psql("postgres", "-c", f"create database {database}")
    url = postgres.url(database)
    subprocess.run([TAMTAM, "migrate", "--database", url], check=True)
    print(f"writing {contacts:,} contacts and {contacts * 10:,} events", file=sys.stderr)
    postgres.psql(database, "-v", f"contacts={contacts}", "-v", "seed=7", "-f", "deploy/bench/audience.sql")
    console = Role("console", url)

    def count(where):
        query = urllib.parse.urlencode({"where": where})
        request = urllib.request.Request(f"{console.ready['console']}/v1/audience/count?{query}")
        request.add_header("authorization", f"Bearer {KEY}")
        return json.load(urllib.request.urlopen(request))["count"]

    began = time.perf_counter()
    count(NARROW)
    first = (time.perf_counter() - began) * 1000
    segmenter = Role("segmenter", url)
    began = time.perf_counter()
    while postgres.psql(database, "-c", "select count(*) from audience_properties where built_at is null") != "0":
        time.sleep(0.2)
        if time.perf_counter() - began > 300:
            raise SystemExit("no index was made for what was asked")
    made = time.perf_counter() - began
    tamtam = {where: median(lambda: count(where)) for where in BY_HAND}
    segmenter.stop()
    postgres.psql(database, "-c", "create index by_hand on history ((data->>'category'), time) where type = 'order.placed'")
    postgres.psql(database, "-c", "analyze history")

    def by_hand(where):
        plan = postgres.psql(database, "-c", "set jit = off", "-c", "explain (analyze, timing off) " + BY_HAND[where])
        return float(re.search(r"Execution Time: ([0-9.]+)", plan)[1])

    hand = {where: statistics.median(by_hand(where) for _ in range(RUNS)) for where in BY_HAND}
    answers = {where: int(postgres.psql(database, "-c", BY_HAND[where])) for where in BY_HAND}
    postgres.psql(database, "-c", "drop index by_hand")

    rows = duckdb.connect()
    rows.execute("set threads = 2")
    postgres.psql(database, "-c", f"\\copy (select id, gender, region, birth_date from contacts) to '{DIRECTORY.parent}/tamtam-contacts.csv' csv header")
    postgres.psql(database, "-c", f"\\copy (select contact_id, type, time, data->>'category' as category from history) to '{DIRECTORY.parent}/tamtam-history.csv' csv header")
    for table in ("contacts", "history"):
        file = f"{DIRECTORY.parent}/tamtam-{table}.csv"
        types = "types = {'id': 'varchar'}" if table == "contacts" else "types = {'contact_id': 'varchar', 'time': 'timestamptz'}"
        rows.execute(f"create table {table} as select * from read_csv('{file}', header = true, {types})")
        os.remove(file)
    duck = {where: median(lambda: rows.execute(DUCKDB[where]).fetchone()[0]) for where in BY_HAND}
    rows.close()
    result = {"contacts": contacts, "first": first, "made": made}
    for name, where in (("narrow", NARROW), ("broad", BROAD)):
        ours, found = tamtam[where]
        # A moment passes between the counts, in which somebody leaves the window.
        for other in (answers[where], duck[where][1]):
            assert abs(found - other) <= max(20, found // 1000), f"{name}: {found} {answers[where]} {duck[where]}"
        result[name] = {"found": found, "tamtam": ours, "hand": hand[where], "duckdb": duck[where][0]}
    result |= campaign(postgres, database, url, console)
    console.stop()
    return result


def campaign(postgres, database, url, console):
    """From the launch until every job is on the bus, without what comes after it."""
    environment = os.environ | {"TAMTAM_API_KEY": KEY}
    server = ["--server", console.ready["console"], "--json"]

    def tamtam(*arguments):
        made = subprocess.run([TAMTAM, *arguments, *server], check=True, capture_output=True, text=True, env=environment)
        return json.loads(made.stdout)

    template = f"{DIRECTORY.parent}/tamtam-bench.toml"
    pathlib.Path(template).write_text('[[template]]\nname = "t"\nclass = "marketing"\nsender = "BOUTIQUE"\ntext = "Bonjour"\n')
    tamtam("apply", "-f", template)
    os.remove(template)
    segmenter = Role("segmenter", url)
    made = tamtam("campaign", "create", "--name", "bench", "--where", "id is set", "--template", "t")["id"]
    tamtam("campaign", "launch", made)
    done = f"""select extract(epoch from max(k.done_at) - min(c.launched_at)), sum(k.planned) from campaigns c join campaign_chunks k
        on k.campaign_id = c.id where c.id = '{made}' and c.expanded_at is not null having bool_and(k.done_at is not null)"""
    while not (found := postgres.psql(database, "-c", done)):
        time.sleep(0.5)
    segmenter.stop()
    seconds, planned = (float(part) for part in found.split("|"))
    file = f"{DIRECTORY.parent}/tamtam-bench.csv"
    with open(file, "w") as rows:
        rows.write("id,phone,first_name,gender,birth_date,region,marketing_consent,points\n")
        for number in range(500_000):
            rows.write(f"new{number},+262692{number % 1000000:06},Zoé,female,1990-01-01,north,true,{number % 1000}\n")
    rates = []
    for _ in range(2):
        began = time.perf_counter()
        answer = tamtam("contacts", "import", file)
        rates.append(500_000 / (time.perf_counter() - began))
    assert answer["unchanged"] == 500_000, {name: answer[name] for name in ("unchanged", "rejected", "updated", "created")}
    os.remove(file)
    return {"expansion": planned / seconds, "import": rates[0], "again": rates[1]}


TARGETS = {"narrow": 50, "broad": 250}


def table(results):
    lines = [
        "| contacts | events | audience | finds | tamtam, over HTTP | target | SQL by hand, in the server | DuckDB, in memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        for name, target in TARGETS.items():
            one = result[name]
            within = f"≤ {target} ms" if result["contacts"] == 1_000_000 else ""
            lines.append(f"| {result['contacts']:,} | {result['contacts'] * 10:,} | {name} | {one['found']:,} | {one['tamtam']:.0f} ms | {within} | {one['hand']:.0f} ms | {one['duckdb']:.0f} ms |")
    if len(results) > 1:
        first, last = results[0], results[-1]
        times = last["contacts"] / first["contacts"]
        grown = ", ".join(f"{name} {last[name]['tamtam'] / first[name]['tamtam']:.1f} ×" for name in TARGETS)
        lines += ["", f"With {times:.0f} times the contacts and events a count takes: {grown} as long (target: at most {times:.0f} ×)."]
    lines += ["", "| contacts | narrow, asked for the first time | its index made in | import of 500,000 | the same again | expansion of a campaign to all |", "|---|---|---|---|---|---|"]
    for result in results:
        lines.append(f"| {result['contacts']:,} | {result['first']:.0f} ms | {result['made']:.0f} s | {result['import']:,.0f} rows/s | {result['again']:,.0f} rows/s | {result['expansion']:,.0f} contacts/s |")
    lines.append("| target | | | ≥ 50,000 rows/s | | ≥ 50,000 contacts/s |")
    return "\n".join(lines)


def main():
    sizes = [100_000, 1_000_000]
    own = "--contacts" in sys.argv
    if own:
        sizes = [int(size) for size in sys.argv[sys.argv.index("--contacts") + 1].split(",")]
    postgres = Postgres()
    try:
        made = table([measure(postgres, size) for size in sizes])
    finally:
        postgres.stop()
    print(made)
    if not own:
        path = pathlib.Path("docs/benchmarks.md")
        text = path.read_text()
        begin, end = "<!-- audience -->", "<!-- /audience -->"
        before, rest = text.split(begin)
        when = time.strftime("%Y-%m-%d")
        machine = f"Measured on {when}, {os.cpu_count()} cores; narrow: `{NARROW}`; broad: `{BROAD}`."
        path.write_text(f"{before}{begin}\n{machine}\n\n{made}\n{end}{rest.split(end)[1]}")


main()
