"""One module for each kind of run, and what every run has."""
