"""The process: server, logs, garbage collector, secret key, topology."""
