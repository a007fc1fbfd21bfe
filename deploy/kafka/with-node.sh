#!/usr/bin/env bash
# Runs a command with an Apache Kafka node of its own, whose address it finds in $KAFKA:
#   with-node.sh 'target/release/tamtam demo --kafka $KAFKA'
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
directory=$(mktemp -d)
while :; do
  port=$((20000 + RANDOM % 12000))
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
done
"$here/node.sh" "$port" "$directory/node" $$ &
node=$!
stop() { kill "$node" 2>/dev/null || true; wait "$node" 2>/dev/null || true; rm -rf "$directory"; }
trap stop EXIT
for _ in $(seq 600); do
  kill -0 "$node" 2>/dev/null || { echo "with-node.sh: the node ended while it started" >&2; exit 69; }
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
  sleep 0.1
done
KAFKA=127.0.0.1:$port bash -c "$1"
