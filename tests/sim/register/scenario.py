"""Three nodes of the replicated register, five clients, whatever faults there are, and the judgement.

minidist sim tests/sim/register/scenario.py --seeds 1..2000 --faults random
minidist sim tests/sim/register/scenario.py --seeds 1..500 --faults random --bug register-stale-read
"""

import asyncio
import itertools

from register_service import Register

CLIENTS = 5
REGISTERS = ("r0", "r1")
COUNTER = "c0"
THINK_S = (0.02, 0.3)
TIMEOUT_S = 2.5
TRIES = 2  # an operation without an answer is asked of another node, under the same number
GIVES_UP = 0.3  # or the client leaves it in doubt
# Some cannot wait: they go while the answer is on its way, or before the request has arrived.
HURRIES, HURRY_S = 0.04, (0.0005, 0.02)


class NoAnswer(Exception):
    pass


class Client:
    """Sets and reads registers, adds to and reads a counter; stays with a node until that fails it."""

    def __init__(self, sim, store, number, values):
        self.sim = sim
        self.name = f"user-{number}"
        self.nodes = list(store)
        self.at = number % len(self.nodes)
        self.values = values
        self.random = sim.world.streams.of(self.name)
        self.process = sim.history.process(self.name)
        self.sequence = 0
        self.connection = None

    async def work(self):
        while self.sim.working:
            await self.step()
            await asyncio.sleep(self.random.uniform(*THINK_S))
        self.drop()

    async def step(self):
        history, chance = self.sim.history, self.random.random()
        key = self.random.choice((*REGISTERS, COUNTER))
        if chance < 0.5:
            token = history.invoke(self.process, "read", key)
            line = f"GET {key}"
        else:
            self.sequence += 1
            f, word, value = ("add", "ADD", 1) if key == COUNTER else ("write", "SET", next(self.values))
            token = history.invoke(self.process, f, key, value)
            line = f"{word} {key} {value} {self.name}/{self.sequence}"
        asked = 0
        hurries = self.random.random() < HURRIES
        timeout_s = self.random.uniform(*HURRY_S) if hurries else TIMEOUT_S
        for _ in range(1 if hurries or self.random.random() < GIVES_UP else TRIES):
            try:
                outcome, text = await self.ask(line, timeout_s)
            except NoAnswer as error:
                outcome, text = ("unsent" if error.args[0] == "unsent" else "UNKNOWN"), str(error)
            if outcome == "OK":
                value = None if text == "nil" else int(text)
                history.ok(token, (value or 0 if key == COUNTER else value) if token.f == "read" else None)
                return
            asked += outcome == "UNKNOWN"
            self.drop()
            self.at = (self.at + 1) % len(self.nodes)
        if asked and token.f != "read":
            history.info(token, text)
        else:
            history.fail(token, text)

    async def ask(self, line, timeout_s):
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if self.connection is None:
                    node = self.nodes[self.at]
                    self.connection = await asyncio.open_connection(node.host, node.port)
        except (OSError, TimeoutError):
            raise NoAnswer("unsent") from None
        reader, writer = self.connection
        try:
            async with asyncio.timeout(timeout_s):
                writer.write(f"{line}\n".encode())
                answer = await reader.readline()
        except (OSError, TimeoutError) as error:
            raise NoAnswer(str(error) or "timed out") from None
        if not answer.endswith(b"\n"):
            raise NoAnswer("closed")
        outcome, _, text = answer.decode().strip().partition(" ")
        return outcome, text

    def drop(self):
        if self.connection is not None:
            self.connection[1].transport.abort()
            self.connection = None


async def scenario(sim):
    store = await sim.node(Register, replicas=3)
    values = itertools.count(1)
    for number in range(CLIENTS):
        client = Client(sim, store, number, values)
        sim.client(client.work(), name=client.name)
    await sim.trial()
    sim.check("register", only=lambda operation: operation.key in REGISTERS)
    sim.check("counter", only=lambda operation: operation.key == COUNTER)
