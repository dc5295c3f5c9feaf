"""The query endpoint's statements: rows of JSON from Postgres."""
