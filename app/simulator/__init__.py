"""The simulator: the shipped advisor over simulated pools, on a trace or a made-up load.

Pure: no clock, no file, no event loop, and nothing of the service but its domain. Whatever it
says follows from its arguments and the seed.
"""
