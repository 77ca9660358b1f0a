"""Executors: where an engine's work is done, in this process, in others, or on a cluster."""
