"""What touches the world: loop, clock, disk, listeners, peers, faults, metrics, admin, configuration, logs."""
