"""Hypothesis profiles: dev (default), ci (the same examples every time), nightly (many)."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

pytest_plugins = ["pytester"]

QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.differing_executors]  # drawing a model takes milliseconds
settings.register_profile("dev", deadline=None, max_examples=25, suppress_health_check=QUIET)
settings.register_profile("ci", deadline=None, max_examples=25, derandomize=True, suppress_health_check=QUIET)
settings.register_profile("nightly", deadline=None, max_examples=1000, suppress_health_check=QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))
