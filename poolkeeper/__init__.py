"""The package that applications import.

* `poolkeeper.client`: clients of the API, sync and async; `poolkeeper.api` has its requests,
  `poolkeeper.models` its types, `poolkeeper.errors` its exceptions.
* `poolkeeper.embedding`: the pools themselves, inside an application.

The client imports nothing of the service, which may run elsewhere and in another version.
"""
