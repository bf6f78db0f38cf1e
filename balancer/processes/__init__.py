"""What a managed child process is made of; `balancer.process` puts it together."""
