"""What an operator asks for on the command line: look, silence, read the history, follow the logs."""
