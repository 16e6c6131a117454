"""The commands of `ws-cluster monitor`: status, silences, history, logs, and those that run until stopped."""
