"""Tests of candidates of libraries, functions and model files."""
