"""The simulated world: an event loop with virtual time, a network, disks and clocks, all drawn from one seed."""
