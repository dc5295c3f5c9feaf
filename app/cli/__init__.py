"""The commands of poolkeeper."""
