"""What decides: state machines and algorithms that components share. Pure."""
