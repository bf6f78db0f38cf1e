"""Workers: child processes that serve one model each, and what parent and child say to each other."""
