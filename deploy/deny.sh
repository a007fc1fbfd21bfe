#!/usr/bin/env bash
# Licences, banned and duplicate crates, sources: always. Advisories: where the RustSec database can be had, and said so
# where it cannot.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo deny --log-level error check licenses bans sources
if timeout 60 cargo deny fetch db >/dev/null 2>&1; then
  cargo deny --log-level error check --disable-fetch advisories
else
  echo "advisories: not checked, the RustSec database cannot be reached from here"
fi
