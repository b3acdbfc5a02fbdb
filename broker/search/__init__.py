"""The broker's side of search: the worker's supervision, what the worker reads, and the one search path behind all doors."""
