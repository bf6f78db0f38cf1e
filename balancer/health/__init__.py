"""Health of backends: prober, thresholds, and circuit breaker."""
