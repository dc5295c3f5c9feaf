"""Text for people: safe to print, fitted to a width. It imports nothing of the project."""
