#!/usr/bin/env bash
# Jasmin with a Redis and a RabbitMQ of its own, HTTP in and SMPP out: jasmin.sh SMPP-HOST SMPP-PORT.
# Says `ready URL` (the message is appended to the URL as to= and content=) and runs until its standard input closes.
# Throughput unlimited, logs at ERROR. Its figures flatter it: 0.11.1 fails on each submit response after the answer.
set -euo pipefail
host=$1 port=$2
peers=$(cd "$(dirname "$0")/../../.." && pwd)/.cache/peers
directory=$(mktemp -d)
chmod 755 "$directory"
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
wait_port() { for _ in $(seq 600); do (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return; sleep 0.1; done; echo "jasmin.sh: nothing on port $1" >&2; return 1; }
redis=$(free_port) amqp=$(free_port) dist=$(free_port) epmd=$(free_port) http=$(free_port) cli=$(free_port)
router=$(free_port) clients=$(free_port) smpps=$(free_port) smppspb=$(free_port) thrower=$(free_port)
pids=()
stop() { kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true; ERL_EPMD_PORT=$epmd epmd -kill >/dev/null 2>&1 || true; rm -rf "$directory"; }
trap stop EXIT

redis-server --port "$redis" --bind 127.0.0.1 --dir "$directory" --save '' >/dev/null 2>&1 & pids+=($!)
mkdir -p "$directory/rabbit" "$directory/home"
export ERL_EPMD_PORT=$epmd
# The server itself, not Debian's wrapper, which changes the user.
env HOME="$directory/home" RABBITMQ_NODENAME="bench$amqp@localhost" RABBITMQ_NODE_PORT="$amqp" RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 \
  RABBITMQ_DIST_PORT="$dist" RABBITMQ_MNESIA_BASE="$directory/rabbit" RABBITMQ_LOG_BASE="$directory/rabbit" \
  RABBITMQ_ENABLED_PLUGINS_FILE="$directory/rabbit/plugins" RABBITMQ_PID_FILE="$directory/rabbit/pid" \
  RABBITMQ_CONFIG_FILE="$directory/rabbit/none" \
  /usr/lib/rabbitmq/bin/rabbitmq-server >/dev/null 2>&1 & pids+=($!)
wait_port "$redis"
wait_port "$amqp"

root=$directory/root
mkdir -p "$root/etc/jasmin/resource" "$root/etc/jasmin/store" "$root/var/log/jasmin"
cp "$peers/amqp0-9-1.xml" "$root/etc/jasmin/resource/"
{
  printf '[amqp-broker]\nhost = 127.0.0.1\nport = %s\nlog_level = ERROR\n' "$amqp"
  printf '[redis-client]\nhost = 127.0.0.1\nport = %s\nlog_level = ERROR\n' "$redis"
  # A file that may be renamed: it is rotated, and run as root that would be the machine's /dev/null.
  printf '[http-api]\nbind = 127.0.0.1\nport = %s\nlog_level = ERROR\naccess_log = %s\n' "$http" "$root/var/log/jasmin/http-access.log"
  printf '[jcli]\nbind = 127.0.0.1\nport = %s\nauthentication = False\nlog_level = ERROR\n' "$cli"
  printf '[router]\nbind = 127.0.0.1\nport = %s\nlog_level = ERROR\n' "$router"
  printf '[client-management]\nbind = 127.0.0.1\nport = %s\nlog_level = ERROR\n' "$clients"
  printf '[smpp-server]\nbind = 127.0.0.1\nport = %s\nlog_level = ERROR\n' "$smpps"
  printf '[smpp-server-pb]\nbind = 127.0.0.1\nport = %s\nlog_level = ERROR\n' "$smppspb"
  for section in service-smppclient sm-listener dlr dlr-thrower deliversm-thrower interceptor-client; do
    printf '[%s]\nlog_level = ERROR\n' "$section"
  done
} >"$root/etc/jasmin/jasmin.cfg"
export ROOT_PATH=$root
"$peers/bin/python" "$peers/bin/jasmind.py" -c "$root/etc/jasmin/jasmin.cfg" \
  >"$directory/jasmin.log" 2>&1 & pids+=($!)
wait_port "$http" || { cat "$directory/jasmin.log" >&2; exit 1; }
wait_port "$cli"
"$peers/bin/python" - "$cli" "$host" "$port" >&2 <<'END'
# Its settings are made over its own command line: a connector, a route, a user.
import re, socket, sys, time

cli = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
cli.settimeout(20)


def until(prompt):
    got = b""
    # It is drawn as on a terminal, with telnet's own negotiation before it.
    while not re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b.|\xff[\xfb-\xfe].", b"", got).rstrip().endswith(prompt):
        try:
            more = cli.recv(4096)
        except TimeoutError:
            raise SystemExit(f"jasmin's command line does not say {prompt!r}: {got!r}")
        if not more:
            raise SystemExit("jasmin's command line closed: " + got.decode(errors="replace"))
        got += more
    return got


def say(line, prompt=b">"):
    cli.sendall(line.encode() + b"\r\n")
    return until(prompt)


# It prompts after the first line.
say("", b"jcli :")
for group in [
    ["smppccm -a", "cid main", f"host {sys.argv[2]}", f"port {sys.argv[3]}", "username jasmin", "password jasmin",
     "submit_throughput 0", "bind transceiver", "requeue_delay 1", "loglevel 40"],
    ["group -a", "gid bench"],
    ["user -a", "username bench", "password bench", "gid bench", "uid bench"],
    ["mtrouter -a", "type defaultroute", "connector smppc(main)", "rate 0.00"],
]:
    for line in group:
        say(line)
    answer = say("ok", b"jcli :")
    if b"uccess" not in answer:
        raise SystemExit(f"{group[0]}: {answer.decode(errors='replace')}")
say("smppccm -1 main", b"jcli :")
for _ in range(100):
    if b"BOUND" in say("smppccm -l", b"jcli :"):
        break
    time.sleep(0.1)
else:
    raise SystemExit("jasmin does not bind")
END
echo "ready http://127.0.0.1:$http/send?username=bench&password=bench&from=BOUTIQUE"
cat >/dev/null
