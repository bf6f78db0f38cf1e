"""MLX: Apple silicon's own array framework, which also runs on CPUs."""
