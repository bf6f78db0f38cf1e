"""The machine: its devices and memory, processes, threads and locks."""
