"""Candidates of libraries, of Python functions and of model files, named on the command line."""
