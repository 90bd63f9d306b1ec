"""The demonstration: a small shop behind a balancer, with a cache, under load, while one of its servers dies."""
