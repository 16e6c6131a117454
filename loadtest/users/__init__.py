"""Users of the load test: what one client does, over and over."""
