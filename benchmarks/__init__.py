"""Benchmarks: loads that run against any Kafka broker, and measurements of Senselog's own search path.

`python -m benchmarks` starts a Senselog of its own and runs everything; `python -m benchmarks.beside_kafka` runs the broker's loads
against Senselog and Apache Kafka one after the other. Figures are ratios within one run wherever a reference exists: machines are
shared, and a number without its reference says more about the neighbours than about the broker.
"""
