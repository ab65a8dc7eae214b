"""Damaged files by the thousand through HTTP: each is captioned or refused in the one shape of failures."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from enclap.captioner import Captioner
from enclap.serving.settings import ServeSettings
from fakes import EchoEngine
from fuzzing import make_case, make_originals
from servers import running

CASES, SEED = 2000, 14


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_damaged_file_is_a_fault_of_the_server() -> None:
    originals = make_originals()
    with (
        running(Captioner(EchoEngine(), "echo"), ServeSettings(max_seconds=60)) as server,
        ThreadPoolExecutor(4) as pool,
    ):

        def ask(number: int) -> tuple[int, str]:
            case = make_case(SEED, number, originals)
            answer = server.post(files={"file": (case.name, case.content)}, timeout=300)
            if answer.status_code == 200:
                return 200, ""
            error = answer.json()["error"]
            assert "/" not in error["message"].replace(case.name, ""), error
            return answer.status_code, error["code"]

        found = Counter(pool.map(ask, range(CASES)))
        assert server.client.get("/readyz").status_code == 200
    assert {status for status, _ in found} <= {200, 422}, found
    assert found[200, ""] > CASES // 10 and sum(found.values()) == CASES
