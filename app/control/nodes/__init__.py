"""Nodes: declared, fed, heard, and given their part of each server's budget."""
