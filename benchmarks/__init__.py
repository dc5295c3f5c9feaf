"""Measurements of the service and of its pools beside their peers; nothing asserts a time."""
