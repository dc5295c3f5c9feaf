"""`make advisor-report`: every rule on every load, as a table and as drawings."""
