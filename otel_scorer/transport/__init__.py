"""OTLP over the network: receivers that answer clients, senders and the forwarder that feed backends."""
