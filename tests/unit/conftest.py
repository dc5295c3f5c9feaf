"""How hypothesis looks for counterexamples here: without a stopwatch, for machines differ."""

from hypothesis import settings

settings.register_profile("unit", deadline=None, max_examples=100, stateful_step_count=40)
settings.load_profile("unit")
