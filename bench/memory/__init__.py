"""Memory: keep what the allocator frees, and work on fewer images when it runs out."""
