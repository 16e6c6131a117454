"""The steps of a drill, from a clean baseline through firing and notification to resolved."""
