"""Between the wire and the engines: requests one way, chunks the other."""
