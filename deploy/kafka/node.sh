#!/usr/bin/env bash
# One Apache Kafka node (KRaft, broker and controller in one) for development and tests, on loopback, in the foreground:
#   node.sh PORT DIRECTORY         until it is killed; DIRECTORY keeps its data
#   node.sh PORT DIRECTORY PID     until it is killed or process PID has ended; then DIRECTORY is removed
# KAFKA_JAVA_OPTIONS replaces the Java options. The jars are fetched by fetch.sh.
set -euo pipefail
port=$1 directory=$2 watched=${3:-}
here=$(cd "$(dirname "$0")" && pwd)
libs=$(cd "$here/../.." && pwd)/.cache/kafka/libs
[ -e "$libs/.stamp" ] || { echo "node.sh: no jars in $libs: run deploy/kafka/fetch.sh" >&2; exit 69; }
mkdir -p "$directory"
directory=$(cd "$directory" && pwd)

free_port() {
  local candidate
  while :; do
    candidate=$((20000 + RANDOM % 12000))
    if ! (exec 3<>"/dev/tcp/127.0.0.1/$candidate") 2>/dev/null; then echo "$candidate"; return; fi
  done
}

settings=$directory/server.properties
[ -e "$directory/controller.port" ] || free_port >"$directory/controller.port"
controller=$(cat "$directory/controller.port")
cat >"$settings" <<END
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs=$directory/data
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
group.consumer.min.session.timeout.ms=6000
log.index.size.max.bytes=262144
num.network.threads=2
num.io.threads=4
controlled.shutdown.enable=false
END
options=${KAFKA_JAVA_OPTIONS:--Xms256m -Xmx768m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto}
# shellcheck disable=SC2206 # several options in one variable
java=(java $options "-Dlog4j2.configurationFile=$here/log4j2.xml" -cp "$libs/*")
if [ ! -e "$directory/data/meta.properties" ]; then
  "${java[@]}" kafka.tools.StorageTool format --standalone "--cluster-id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | cut -c1-22)" -c "$settings" >"$directory/format.log" 2>&1 || {
    cat "$directory/format.log" >&2
    exit 70
  }
fi
[ -n "$watched" ] || exec "${java[@]}" kafka.Kafka "$settings"

"${java[@]}" kafka.Kafka "$settings" &
broker=$!
ended=0
trap 'ended=1' TERM INT HUP
while [ $ended = 0 ] && kill -0 "$watched" 2>/dev/null && kill -0 "$broker" 2>/dev/null; do sleep 0.3; done
kill "$broker" 2>/dev/null || true
for _ in $(seq 50); do kill -0 "$broker" 2>/dev/null || break; sleep 0.1; done
kill -9 "$broker" 2>/dev/null || true
rm -rf "$directory"
