#!/usr/bin/env bash
# Real clients against a real broker: kcat, confluent-kafka, kafka-python, aiokafka, kafkajs, and Kafka's own Java tools where a Kafka is
# at hand (KAFKA_LAUNCHER). Installs kcat (Debian) and kafkajs (npm) where they are missing. Called by `make compat`.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! command -v kcat > /dev/null && command -v apt-get > /dev/null; then
  echo "Installing kcat …"
  apt-get update -qq && apt-get install -qq -y kcat > /dev/null
fi
if command -v npm > /dev/null && [ ! -d tests/compat/kafkajs/node_modules/kafkajs ]; then
  echo "Installing kafkajs …"
  (cd tests/compat/kafkajs && npm install --silent --no-audit --no-fund --no-package-lock)
fi
exec .venv/bin/python -m pytest tests/compat -v -rs -o filterwarnings=default -p no:randomly "$@"
