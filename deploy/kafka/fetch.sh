#!/usr/bin/env bash
# Fetches Apache Kafka's jars from Maven Central to .cache/kafka/libs, once for each version of pom.xml.
set -euo pipefail
cd "$(dirname "$0")/../.."
libs=.cache/kafka/libs
stamp=$(sha256sum deploy/kafka/pom.xml | cut -d' ' -f1)
[ "$(cat "$libs/.stamp" 2>/dev/null)" != "$stamp" ] || exit 0
echo "fetching Apache Kafka's jars" >&2
mkdir -p .cache/kafka
fresh=$(mktemp -d .cache/kafka/fetch.XXXXXX)
trap 'rm -rf "$fresh"' EXIT
mvn -B -q -f deploy/kafka/pom.xml dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$PWD/$fresh/libs"
echo "$stamp" >"$fresh/libs/.stamp"
rm -rf "$libs"
mv "$fresh/libs" "$libs"
