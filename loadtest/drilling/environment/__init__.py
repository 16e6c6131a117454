"""What a drill runs in: a cluster with its store and its monitoring, its load, and the machine."""
