"""One module per API key; `broker.registry.load_handlers` imports them all. Handlers never import one another."""
