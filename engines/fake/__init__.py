"""An engine without a model, for tests, for measuring the HTTP edge, and for trying the API."""

from engines.fake.engine import FakeEngine

__all__ = ["FakeEngine"]
