"""The kinds of backends that a call can be sent to."""
