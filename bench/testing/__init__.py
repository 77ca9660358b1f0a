"""What a project's own tests use: the pytest plugin with the fixture `robustness`."""
