"""The server HTTP API beside Centrifugo's: publishes per core, and what a broadcast holds."""
