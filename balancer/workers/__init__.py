"""Workers: child processes that serve one model each, and the protocol between them and their parent."""
