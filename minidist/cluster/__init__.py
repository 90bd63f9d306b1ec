"""The launcher: topology files, processes, verbs."""
