"""The commands of `poolkeeper`. Imports nothing, so that client commands start fast."""
