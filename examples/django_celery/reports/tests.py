"""The project's tests, with a real worker and a real server: nothing is eager, nothing is mocked."""

import time
from collections.abc import Callable

from celery.contrib.testing.worker import start_worker
from django.core.cache import cache
from django.test import Client, SimpleTestCase

from reports.celery import app
from reports.tasks import MONTHS, SourceUnavailable, month_of, start_report

PATIENCE_S = 30


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


class ReportsTest(SimpleTestCase):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        app.control.purge()
        options = {"loglevel": "CRITICAL", "perform_ping_check": False, "shutdown_timeout": PATIENCE_S}
        cls.enterClassContext(start_worker(app, pool="threads", concurrency=4, **options))

    def setUp(self) -> None:
        cache.clear()

    def test_a_report_is_built_once_and_then_comes_from_the_cache(self) -> None:
        self.assertEqual(self.client.get("/reports/2020").status_code, 202)
        wait_for(lambda: self.client.get("/reports/2020").status_code == 200)
        expected = {"year": 2020, "best": 2020 * 12, "total": 2020 * sum(MONTHS)}
        self.assertEqual(self.client.get("/reports/2020").json(), expected)

    def test_who_asks_while_it_is_built_starts_nothing(self) -> None:
        cache.add("building:2021", True)
        self.assertEqual(self.client.get("/reports/2021").json(), {"started": False})
        self.assertFalse(start_report(2021))

    def test_a_source_that_is_down_for_a_while_only_delays_it(self) -> None:
        cache.set("source down for", 3)
        self.assertEqual(month_of.delay(2022, 2).get(timeout=PATIENCE_S), 4044)
        self.assertEqual(cache.get("source down for"), 0)

    def test_a_source_that_stays_down_is_an_error(self) -> None:
        cache.set("source down for", 1000)
        task = month_of.delay(2023, 1)
        with self.assertRaises(SourceUnavailable):
            task.get(timeout=PATIENCE_S)
        self.assertTrue(task.failed())

    def test_visitors_have_sessions_of_their_own(self) -> None:
        for year in (2001, 2002):
            self.client.get(f"/reports/{year}")
        self.assertEqual(self.client.get("/recent").json(), {"years": [2001, 2002]})
        self.assertEqual(Client().get("/recent").json(), {"years": []})
