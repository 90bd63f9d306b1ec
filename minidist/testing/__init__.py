"""The embedding API and the pytest plugin."""
