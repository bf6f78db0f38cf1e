"""Health of backends: probes, thresholds, and the circuit breaker."""
