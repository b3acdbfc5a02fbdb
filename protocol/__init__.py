"""Kafka's bytes: messages of every API and version, record batches, compression and checksums.

Pure computation: this package touches no socket, clock, disk (except its own schemas), chance or event loop.

- `protocol.messages`: one class per message, the same for all versions.
- `protocol.codec`: bytes to messages and back, compiled from Kafka's own JSON schemas on first use.
- `protocol.headers`: request and response headers.
- `protocol.record_batch`: record batches (magic 2), the unit that producers send and the log stores.
- `protocol.errors`: Kafka's error codes, and the exception that carries one.
"""
