#!/usr/bin/env bash
# `make bench-audience`: counts audiences on generated contacts and events, imports and expands; see audience.py.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv=target/bench/venv
if [ ! -x $venv/bin/python ]; then
  python3 -m venv $venv
fi
$venv/bin/python -c 'import duckdb' 2>/dev/null || $venv/bin/pip install -q duckdb==1.4.2
exec $venv/bin/python deploy/bench/audience.py "$@"
