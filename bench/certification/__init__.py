"""Certificates: radii inside which a prediction provably cannot change."""
