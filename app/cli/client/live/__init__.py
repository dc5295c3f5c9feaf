"""The live screen of `poolkeeper top`: what it fetches, what its keys do, and how it looks."""
