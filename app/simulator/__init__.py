"""The shipped advisor over simulated pools, on a trace or a synthetic load.

Pure: no clock, no file, no event loop, and nothing of the service but its domain. The results
follow from the arguments and the seed.
"""
