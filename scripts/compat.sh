#!/usr/bin/env bash
# Real clients against a real broker, and the table of what each can do (docs/clients.md). Installs what is missing: kcat (Debian), the
# older releases of Python clients (each in an environment of its own under .compat), the clients for Node (npm), and compiles the driver
# of Kafka's Java clients where a Kafka is at hand (KAFKA_LAUNCHER). Arguments go to pytest; without any, all is run and the table written.
set -euo pipefail
cd "$(dirname "$0")/.."
KAFKA_LAUNCHER="${KAFKA_LAUNCHER:-$PWD/../shared/kafka/kafka}"
drivers=tests/compat/drivers

if ! command -v kcat > /dev/null && command -v apt-get > /dev/null; then
  echo "Installing kcat …"
  apt-get update -qq && apt-get install -qq -y kcat > /dev/null
fi

codecs=$(grep -E '^(crc32c|lz4|python-snappy|zstandard)==' constraints.txt)
for release in confluent-kafka==2.10.1 kafka-python==2.0.2 kafka-python==2.3.3; do
  environment=".compat/${release/==/-}"
  [ -e "$environment/.ready" ] && continue
  echo "Installing $release …"
  .venv/bin/python -m venv "$environment"
  # shellcheck disable=SC2086  # one requirement a word
  "$environment/bin/pip" install --disable-pip-version-check --quiet "$release" $codecs
  touch "$environment/.ready"
done

if command -v npm > /dev/null && [ ! -e "$drivers/node_modules/@platformatic/kafka" ]; then
  echo "Installing kafkajs and @platformatic/kafka …"
  (cd "$drivers" && npm install --silent --no-audit --no-fund --no-package-lock)
fi

if command -v javac > /dev/null && [ -e "$KAFKA_LAUNCHER" ] && [ ! .compat/java/JavaDriver.class -nt "$drivers/JavaDriver.java" ]; then
  echo "Compiling the driver of the Java clients …"
  mkdir -p .compat/java
  javac -nowarn -cp "$(dirname "$KAFKA_LAUNCHER")/libs/*" -d .compat/java "$drivers/JavaDriver.java"
fi

[ $# -gt 0 ] || set -- --table docs/clients.md
exec .venv/bin/python -m pytest tests/compat -v -rfEs -o filterwarnings=default -p no:randomly "$@"
