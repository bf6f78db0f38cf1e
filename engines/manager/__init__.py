"""Which models are loaded: their states, the memory they may take, and who makes room for whom."""
