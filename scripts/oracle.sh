#!/usr/bin/env bash
# Apache Kafka's recorded answers, step by step, against fresh brokers: first an open one, then one with SASL and ACLs, then one whose
# sessions end. ORACLE is the folder with oracle.py and its recordings; arguments are the scenarios to play (default: all);
# `security` as the first one plays only those with SASL and ACLs, `own` those of tests/oracle. Fails when a step differs that
# tests/compat/FINDINGS.md does not declare. Called by `make oracle`.
set -euo pipefail
cd "$(dirname "$0")/.."
oracle="${ORACLE:-../shared/oracle}"
[ -f "$oracle/oracle.py" ] || { echo "no oracle at $oracle: set ORACLE to the folder that holds oracle.py" >&2; exit 2; }
oracle="$(realpath "$oracle")"
directory="$(mktemp -d)"
broker=""
trap 'stop; rm -rf "$directory"' EXIT

stop() {
  [ -z "$broker" ] || { kill "$broker" 2> /dev/null; wait "$broker" 2> /dev/null || true; }
  broker=""
}

start() { # SETTING… → bootstrap
  stop
  rm -rf "$directory/data"
  .venv/bin/python -m senselog serve --data-dir "$directory/data" --listen 127.0.0.1:0 --http 127.0.0.1:0 \
    --set group.initial.rebalance.delay.ms=0 --set storage.sync=os "$@" > "$directory/ready" 2> "$directory/log" &
  broker=$!
  for _ in $(seq 300); do grep -q '^senselog ready' "$directory/ready" && break; kill -0 "$broker" || { cat "$directory/log" >&2; exit 1; }; sleep 0.1; done
  bootstrap="$(sed -n 's/.*kafka=\([^ ]*\).*/\1/p' "$directory/ready")"
}

report() { .venv/bin/python scripts/oracle_report.py --oracle "$oracle" --bootstrap "$bootstrap" "$@"; }

printf '%s=%s-secret\n' admin admin alice alice bob bob carol carol > "$directory/users"
secure=(--set listeners=SASL_PLAINTEXT://127.0.0.1:0 --set sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
  --set "sasl.plain.users.file=$directory/users" --set super.users=User:admin
  --set authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer)
failed=0
if [ "${1:-}" = own ]; then
  start
  shift
  report --folder "$PWD/tests/oracle" "$@"
  exit
elif [ "${1:-}" != security ]; then
  start
  report "$@" || failed=1
  [ $# != 0 ] || report --folder "$PWD/tests/oracle" || failed=1
  [ $# = 0 ] || exit "$failed"
else
  shift
fi
start "${secure[@]}"
report --user admin:admin-secret --folder security "$@" || failed=1
if [ $# = 0 ]; then
  start "${secure[@]}" --set connections.max.reauth.ms=3000
  report --user admin:admin-secret --folder security/reauth || failed=1
fi
exit "$failed"
