"""kill -9 under load, round after round, against the real broker and a real client: `make crash`."""
