"""Drills: a fault is injected, its alert must fire, be notified and end, and all of it is reported."""
