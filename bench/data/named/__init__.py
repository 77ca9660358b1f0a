"""The data sets that are known by name: each module here registers its own."""
