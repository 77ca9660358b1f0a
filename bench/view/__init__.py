"""The site of a store, served to a browser while runs go on; nothing here runs a model."""
