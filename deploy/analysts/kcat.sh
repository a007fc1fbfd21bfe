#!/usr/bin/env bash
# The receipts topic, a line a record: ce_id, a tab, and the JSON. A record that is there twice under one ce_id is told once.
#   BROKERS=localhost:9092 [PREFIX=tamtam.] kcat.sh
set -euo pipefail
kcat -b "${BROKERS:?HOST:PORT of a broker}" -C -e -q -o beginning -t "${PREFIX:-tamtam.}receipts" -f '%h\t%s\n' |
  awk -F'\t' '{
    id = ""
    count = split($1, headers, ",")
    for (i = 1; i <= count; i++) if (headers[i] ~ /^ce_id=/) id = substr(headers[i], 7)
    if (!(id in seen)) { seen[id] = 1; print id "\t" $2 }
  }'
