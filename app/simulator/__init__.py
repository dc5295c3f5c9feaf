"""The shipped advisor over simulated pools, on a trace or a synthetic load.

Pure: no clock, no file, no event loop, and of the service only its domain. Results depend only on
the arguments and the seed.
"""
