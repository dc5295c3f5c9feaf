"""The process: HTTP server, logs, garbage collector, secret key, topology, life of an instance."""
