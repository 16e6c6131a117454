"""Micro benchmarks: they justify what we wrote ourselves although a library does it."""
