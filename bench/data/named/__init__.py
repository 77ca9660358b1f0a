"""The named data sets; each module here registers its own."""
