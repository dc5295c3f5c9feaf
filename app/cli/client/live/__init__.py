"""The live screen of `poolkeeper top`: what it fetches, what keys do, and how it looks."""
