"""How many examples the property tests try: few by default, thousands for the record (``HYPOTHESIS_PROFILE=record``)."""

import os

from hypothesis import HealthCheck, settings

# Times are never judged: machines are busy. Fixtures are shared by the examples on purpose; what an example writes, the next
# one replaces. Examples of the default profile are the same in every run.
_COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
settings.register_profile("few", max_examples=40, derandomize=True, **_COMMON)
settings.register_profile("record", max_examples=1500, derandomize=True, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "few"))
