"""The HTTP edge: wire formats, routes, middleware, telemetry and the command line."""

__version__ = "0.1.0"
