"""How a simulated run can go wrong, other than by the code it runs."""


class SimulationError(Exception):
    """The run cannot go on, or must not count."""


class DeadlockError(SimulationError):
    """Nothing is ready, no timer is set, and the run is not over. The text says what each task waits for."""


class LivelockError(SimulationError):
    """Too many steps without time passing: something reschedules itself for ever."""


class StuckError(SimulationError):
    """The run took more virtual time or steps than it was given."""


class LeakError(SimulationError):
    """Code of a node went round the simulation: a thread, a subprocess, a real socket or file, a blocking call."""
