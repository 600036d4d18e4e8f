"""Test doubles and checks that users may import: virtual time, faults, a simulated cluster."""
