"""Text that people read, safe and in width. Imports nothing of the project."""
