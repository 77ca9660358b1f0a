"""Pages that show what the store holds; nothing here runs a model."""
