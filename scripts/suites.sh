#!/usr/bin/env bash
# Other people's own test suites against a fresh broker. Their code stays where it is: each takes the path of a checkout.
#   scripts/suites.sh librdkafka CHECKOUT [NNNN…]        builds tests/test-runner where it is missing; each number by itself
#   scripts/suites.sh kafka-python CHECKOUT [PYTEST ARGUMENT…]
#   scripts/suites.sh franz-go CHECKOUT [ROUNDS]         TestGroupETL and TestTxnEtl; GO is the go command, RECORDS their number
# LOGS is where outputs go (default: a temporary folder, named at the end); KAFKA_LAUNCHER gives librdkafka's tests Kafka's tools.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
suite="$1" checkout="$(cd "$2" && pwd)"
shift 2
cd "$(dirname "$0")/.."
repository="$PWD"
logs="${LOGS:-$(mktemp -d)}"
mkdir -p "$logs"
broker="" # its process id
AUTHORIZER=(allow.everyone.if.no.acl.found=true authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer)

start_broker() { # SETTING=VALUE…: sets bootstrap
  local settings=()
  for setting in "$@"; do settings+=(--set "$setting"); done
  .venv/bin/python -m senselog serve --data-dir "$logs/data" --listen 127.0.0.1:0 --http 127.0.0.1:0 \
    --set storage.sync=os "${settings[@]}" > "$logs/ready" 2> "$logs/broker.log" &
  broker=$!
  for _ in $(seq 300); do
    grep -q '^senselog ready' "$logs/ready" && break
    kill -0 "$broker" || { cat "$logs/broker.log" >&2; exit 1; }
    sleep 0.1
  done
  bootstrap="$(sed -n 's/.*kafka=\([^ ]*\).*/\1/p' "$logs/ready")"
}
stop_broker() {
  [ -n "$broker" ] && kill "$broker" 2> /dev/null && wait "$broker" 2> /dev/null
  rm -rf "$logs/data"
}
trap 'stop_broker || true' EXIT

kafka_home() { # a folder with bin/kafka-*.sh as the tests of librdkafka call them, around KAFKA_LAUNCHER
  local tool
  mkdir -p "$logs/kafka/bin"
  for tool in topics acls configs console-producer console-consumer consumer-groups; do
    printf '#!/bin/sh\nexec "%s" %s "$@"\n' "$KAFKA_LAUNCHER" "$tool" > "$logs/kafka/bin/kafka-$tool.sh"
    chmod +x "$logs/kafka/bin/kafka-$tool.sh"
  done
  echo "$logs/kafka"
}

run_librdkafka() {
  local tests="$checkout/tests" name number count settings=()
  # The tests of topics that nobody creates are a scenario of their own: 0107 0111.
  [ "${TEST_SCENARIO:-}" != noautocreate ] || settings=(auto.create.topics.enable=false)
  # Those of authentication, which all others do without: 0135 0142.
  if [ -n "${SASL:-}" ]; then
    echo alice=secret > "$logs/users"
    settings=(listeners=SASL_PLAINTEXT://127.0.0.1:0 sasl.enabled.mechanisms=PLAIN "sasl.plain.users.file=$logs/users" connections.max.reauth.ms=10000)
  fi
  if [ ! -x "$tests/test-runner" ]; then
    echo "Building librdkafka's tests, with one replica for topics that are to have three …"
    # Parts about share groups within tests of other things: a broker without them would fail the rest, too.
    sed -i -E 's/^( +)do_test_share_[a-z_]*\(/\1(void)(/' "$tests/0135-sasl_credentials.cpp" "$tests/0142-reauthentication.c"
    sed -i -E 's/(create_topic_wait_exists\(.*), 3, 5000\)/\1, 1, 5000)/; s/(create_topic\(.*), 3\);/\1, 1);/' "$tests"/0*.c "$tests"/0*.cpp
    (cd "$checkout" && ./configure --disable-curl --disable-sasl && make libs && make -C tests build) > "$logs/build.log" 2>&1
  fi
  # As trivup, its own launcher, sets up a Kafka.
  start_broker num.partitions=4 group.initial.rebalance.delay.ms=100 "${AUTHORIZER[@]}" "${settings[@]}"
  # Tests that call Kafka's tools start a JVM each time, within limits that do not count on it.
  printf 'bootstrap.servers=%s\ntest.timeout.multiplier=%s\n' "$bootstrap" "${TIMEOUT_MULTIPLIER:-2}" > "$logs/test.conf"
  [ -z "${SASL:-}" ] || printf '%s\n' security.protocol=SASL_PLAINTEXT sasl.mechanism=PLAIN sasl.username=alice sasl.password=secret >> "$logs/test.conf"
  export BROKERS="$bootstrap" LD_LIBRARY_PATH="$checkout/src:$checkout/src-cpp" RDKAFKA_TEST_CONF="$logs/test.conf" TEST_KAFKA_VERSION="${TEST_KAFKA_VERSION:-4.0.0}"
  [ -n "${KAFKA_LAUNCHER:-}" ] && KAFKA_PATH="$(kafka_home)" && export KAFKA_PATH
  # Every test that is neither local (it needs no broker) nor manual; several share a number, and the runner selects by number.
  [ $# -gt 0 ] || set -- $(sed -n '/^struct test tests/,/^};/p' "$tests/test.c" | tr '\n' ' ' | sed 's/_TEST(/\n&/g' \
    | grep -vE 'TEST_F_LOCAL|TEST_F_MANUAL' | sed -n 's/^_TEST(\([0-9]\{4\}\)_.*/\1/p' | sort -u)
  for number in "$@"; do
    (cd "$tests" && TESTS="$number" timeout -k 5 "${TEST_TIMEOUT_S:-600}" ./test-runner -p1 -L ${TEST_SCENARIO:+-s $TEST_SCENARIO} ${RUNNER_OPTIONS:-}) > "$logs/$number.log" 2>&1 || true
    sed 's/\x1b\[[0-9;]*m//g' "$logs/$number.log" | sed -n 's/^| *\([0-9]\{4\}_[a-z0-9_]*\) *| *\([A-Z]*\) *|.*$/\2 \1/p' \
      > "$logs/$number.result"
    [ -s "$logs/$number.result" ] || echo "DIED $number" > "$logs/$number.result" # killed by the time limit or a signal: no summary
    sed 's/^/  /' "$logs/$number.result"
  done
  for name in PASSED FAILED SKIPPED DIED; do
    count="$(cat "$logs"/*.result | grep -c "^$name" || true)"
    echo "$name $count"
  done
}

run_kafka_python() {
  local environment="$repository/.compat/kafka-python-suite"
  if [ ! -x "$environment/bin/pytest" ]; then
    python3 -m venv "$environment"
    "$environment/bin/pip" install --quiet pytest pytest-mock pytest-timeout py lz4 python-snappy zstandard crc32c xxhash
  fi
  # As its own fixture sets up a Kafka.
  start_broker node.id=0 num.partitions=4 group.initial.rebalance.delay.ms=0 group.min.session.timeout.ms=1000 "${AUTHORIZER[@]}"
  pytest() { # VARIABLE=VALUE… -- ARGUMENT…
    local variables=()
    while [ "$1" != -- ]; do variables+=("$1"); shift; done
    (cd "$checkout" && env KAFKA_ROOT="$logs" KAFKA_VERSION="${KAFKA_VERSION:-4.3.0}" "${variables[@]}" "$environment/bin/python" -m pytest \
      -q -rfEs -p no:cacheprovider -o log_level=WARNING "${@:2}") 2>&1 | tee -a "$logs/kafka-python.log"
  }
  if [ $# -gt 0 ]; then pytest "KAFKA_URI=kafka://$bootstrap" -- "$@"; return; fi
  # Those of SASL and TLS start brokers of their own: Senselogs, says the plugin.
  local own=(test/integration/test_ssl_integration.py test/integration/test_sasl_integration.py)
  pytest "PYTHONPATH=$repository/tests/compat:$checkout" -- -p kafka_python_suite "${own[@]}" || true
  pytest "KAFKA_URI=kafka://$bootstrap" -- test/integration "${own[@]/#/--ignore=}"
}

run_franz_go() {
  local rounds="${1:-3}" round test
  (cd "$checkout" && "${GO:-go}" test -c -o "$logs/kgo.test" ./pkg/kgo)
  for round in $(seq "$rounds"); do
    for test in TestGroupETL TestTxnEtl; do
      start_broker group.initial.rebalance.delay.ms=0
      (cd "$checkout/pkg/kgo" && KGO_SEEDS="$bootstrap" KGO_TEST_RF=1 KGO_TEST_RECORDS="${RECORDS:-100000}" timeout 1800 \
        "$logs/kgo.test" -test.v -test.run "^$test\$" -test.timeout 30m) > "$logs/$test-$round.log" 2>&1 \
        && echo "PASSED $test, round $round" || { echo "FAILED $test, round $round: $logs/$test-$round.log"; }
      stop_broker || true
    done
  done
}

case "$suite" in
  librdkafka) run_librdkafka "$@" ;;
  kafka-python) run_kafka_python "$@" ;;
  franz-go) run_franz_go "$@" ;;
  *) echo "unknown suite $suite" >&2; exit 2 ;;
esac
echo "outputs: $logs"
