#!/usr/bin/env bash
# Apache Kafka's recorded answers, step by step, against a fresh broker. ORACLE is the folder with oracle.py and its recordings; arguments
# are the scenarios to play (default: those of the APIs that exist). Fails when a step differs that tests/compat/FINDINGS.md does not
# declare. Called by `make oracle`.
set -euo pipefail
cd "$(dirname "$0")/.."
oracle="${ORACLE:-../shared/oracle}"
[ -f "$oracle/oracle.py" ] || { echo "no oracle at $oracle: set ORACLE to the folder that holds oracle.py" >&2; exit 2; }
directory="$(mktemp -d)"
.venv/bin/python -m senselog serve --data-dir "$directory/data" --listen 127.0.0.1:0 --http 127.0.0.1:0 --grpc 127.0.0.1:0 \
  --set group.initial.rebalance.delay.ms=0 --set storage.sync=os > "$directory/ready" 2> "$directory/log" &
broker=$!
trap 'kill "$broker" 2> /dev/null; wait "$broker" 2> /dev/null || true; rm -rf "$directory"' EXIT
for _ in $(seq 300); do grep -q '^senselog ready' "$directory/ready" && break; kill -0 "$broker" || { cat "$directory/log" >&2; exit 1; }; sleep 0.1; done
bootstrap="$(sed -n 's/.*kafka=\([^ ]*\).*/\1/p' "$directory/ready")"
.venv/bin/python scripts/oracle_report.py --oracle "$oracle" --bootstrap "$bootstrap" "$@"
