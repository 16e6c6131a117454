"""Users of the load test: the actions that one client repeats."""
