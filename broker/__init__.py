"""The broker: sockets, dispatch, one handler per Kafka API, and the services behind them."""
