"""The client libraries that people use, each as its users set it up, against a real server."""
