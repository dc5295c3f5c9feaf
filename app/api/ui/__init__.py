"""The page and Swagger UI, from local files."""
