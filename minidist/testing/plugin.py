"""The pytest plugin. It loads in every pytest run of its users, so it imports nothing until a fixture is used."""
