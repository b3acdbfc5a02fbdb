"""Transactions: their states, what is written of them, and the coordinator (KIP-98, KIP-360, KIP-890)."""
