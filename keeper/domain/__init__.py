"""Frozen values and pure rules. No I/O, no clock, no third-party imports."""
