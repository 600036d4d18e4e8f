"""Test doubles and checks that users may import: virtual time, faults, a simulated cluster."""

from __future__ import annotations

from perdure.testing.exploring import Exploration, Explored, explore_crashes

__all__ = ["Exploration", "Explored", "explore_crashes"]
