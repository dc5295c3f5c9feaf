"""Use cases of pools: desired size and pause; evict, drain, recycle, check."""
