"""What `enclap serve` does under load and under attack: every row starts servers on loopback and is bounded in time.

python benchmarks/serving.py [--rows NAME,…] [--seconds 20]   prints a table in Markdown; needs the extra serve.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import wave
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))  # for the damaged files of `make fuzz`

from enclap.captioner import Captioner
from fuzzing import make_case, make_originals
from server_process import HEAD, Server, clip, exchange, serving
from tables import hardware, today

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
DAMAGED, SEED = 2000, 1


async def send(client: httpx2.AsyncClient, path: Path) -> httpx2.Response:
    """The answer for one recording."""
    return await client.post("/v1/captions", files={"file": (path.name, path.read_bytes())})


def cold(work: Path, seconds: float) -> list[tuple[str, str]]:
    """From the start of the process to the first caption."""
    path = clip(work / "a.wav", 10)
    rows = []
    for option in ("--no-page", "--page"):
        began = time.monotonic()
        with serving(work / option, option) as server:
            httpx2.post(f"{server.url}/v1/captions", files={"file": ("a.wav", path.read_bytes())}, timeout=60)
            rows.append((f"start to first caption, {option}", f"{time.monotonic() - began:.1f} s"))
    return rows


def overhead(work: Path, seconds: float) -> list[tuple[str, str]]:
    """The same clip by the server and by a captioner in this process, in turns, with a rest after each."""
    path = clip(work / "a.wav", 10)
    content = {"file": ("a.wav", path.read_bytes())}
    captioner = Captioner.from_pretrained("mini")
    captioner.caption(path)
    pairs = []
    with serving(work / "state", "--no-page") as server, httpx2.Client(base_url=server.url, timeout=60) as client:
        client.post("/v1/captions", files=content).raise_for_status()
        turns = (lambda: captioner.caption(path), lambda: client.post("/v1/captions", files=content).raise_for_status())
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pair = []
            for turn in turns:
                time.sleep(0.05)
                began = time.monotonic()
                turn()
                pair.append(1000 * (time.monotonic() - began))
            pairs.append(pair)
    alone, served = (statistics.median(times) for times in zip(*pairs, strict=True))
    more = statistics.median(served - alone for alone, served in pairs)
    quickest = min(served for _, served in pairs) - min(alone for alone, _ in pairs)
    found = f"{more:+.0f} ms ({served:.0f} against {alone:.0f} ms, {len(pairs)} pairs)"
    return [
        ("10-s clip over the captioner's, median of pairs", found),
        ("10-s clip over the captioner's, the quickest of each", f"{quickest:+.0f} ms"),
    ]


def clients(work: Path, seconds: float) -> list[tuple[str, str]]:
    """16 clients at once and one command line over the same files, in turns."""
    paths = [clip(work / f"{number}.wav", 10, number) for number in range(48)]
    command = [sys.executable, "-m", "enclap.cli.main", "caption", *map(str, paths), "--format", "jsonl"]

    async def ask(url: str) -> tuple[float, list[float]]:
        waiting, times = list(paths), []
        async with httpx2.AsyncClient(base_url=url, timeout=300) as client:

            async def one() -> None:
                while waiting:
                    path = waiting.pop()
                    began = time.monotonic()
                    (await send(client, path)).raise_for_status()
                    times.append(time.monotonic() - began)

            began = time.monotonic()
            await asyncio.gather(*(one() for _ in range(16)))
            return len(paths) / (time.monotonic() - began), times

    rounds, queues = [], []
    with serving(work / "state", "--no-page") as server:
        asyncio.run(ask(server.url))
        end = time.monotonic() + seconds
        while not rounds or time.monotonic() < end:
            began = time.monotonic()
            subprocess.run(command, check=True, capture_output=True)
            line = len(paths) / (time.monotonic() - began)
            rate, times = asyncio.run(ask(server.url))
            rounds.append((rate / line, rate, line))
            queues.append(statistics.quantiles(times, n=100)[98] * rate / 16)
    ratio, rate, line = sorted(rounds)[len(rounds) // 2]
    found = f"{ratio:.2f} ({rate:.1f} against {line:.1f}; median of {len(rounds)} rounds, no error)"
    return [
        ("16 clients, clips/s against one command line", found),
        ("16 clients, p99 against the ideal queue", f"{statistics.median(queues):.1f} ×"),
    ]


def overload(work: Path, seconds: float) -> list[tuple[str, str]]:
    """Ten times as many clients as the queue takes, for a while; refused ones come again after a second or so."""
    content = (EXAMPLES / "siren.ogg").read_bytes()
    request = HEAD % (b"audio/ogg", len(content)) + content
    found: Counter[str] = Counter()
    refused: list[tuple[float, float]] = []  # seconds since the start, milliseconds to the refusal
    captions: set[bytes] = set()
    memory: list[float] = []

    async def flood(server: Server) -> None:
        end = time.monotonic() + seconds

        async def one() -> None:
            while (began := time.monotonic()) < end:
                try:
                    status, body = await exchange(server, request)
                except (OSError, EOFError) as error:
                    found[type(error).__name__] += 1
                    continue
                found[str(status)] += 1
                if status == 429:
                    refused.append((seconds - end + began, 1000 * (time.monotonic() - began)))
                    await asyncio.sleep(random.uniform(0.5, 1.5))
                else:
                    captions.add(body)

        async def watch() -> None:
            while time.monotonic() < end:
                memory.append(server.memory)
                await asyncio.sleep(1.0)

        await asyncio.gather(watch(), *(one() for _ in range(80)))

    with serving(work / "state", "--no-page", "--queue", "8") as server:
        _, right = asyncio.run(exchange(server, request))
        asyncio.run(flood(server))
        time.sleep(2)
        spent = refusal_seconds(httpx2.get(f"{server.url}/metrics", timeout=60).text)
        alive = httpx2.get(f"{server.url}/readyz", timeout=60).status_code
    third = len(memory) // 3
    kept = f"{statistics.median(memory[third : 2 * third]):.0f} and {statistics.median(memory[2 * third :]):.0f} MB"
    shown = ", ".join(f"{count} × {code}" for code, count in sorted(found.items()))
    later = [taken for start, taken in refused if start > 1]  # at the start all connect in one instant
    soon = sum(taken < 50 for taken in later) / len(later)
    all_soon = sum(taken < 50 for _, taken in refused) / len(refused)
    return [
        (
            f"80 clients, a queue of 8, {seconds:.0f} s",
            f"{shown}; all captions right: {'yes' if captions <= {right} else 'NO'}",
        ),
        ("… time to a refusal, as the clients see it, median", f"{statistics.median(later):.0f} ms"),
        ("… refused in under 50 ms after the first second; in all", f"{soon:.1%}; {all_soon:.1%}"),
        ("… time to a refusal in the server (mean)", f"{1000 * spent:.1f} ms"),
        ("… memory in the middle and the last third", f"{kept}; then /readyz {alive}"),
    ]


def refusal_seconds(text: str) -> float:
    """Mean seconds of processing of the refusals, as the server counts them."""
    values = [float(value) for value in re.findall(r"^enclap_refusal_seconds_(?:sum|count) (\S+)", text, re.MULTILINE)]
    count, total = values
    return total / max(1.0, count)


def connections(work: Path, seconds: float) -> list[tuple[str, str]]:
    """A 300-MB upload, clients of 1 kB/s, 1,000 that say nothing and 20 that vanish, beside a good request."""
    path = clip(work / "a.wav", 10)
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    large = work / "large.wav"  # one clip's samples again and again, until the body has 300 MB
    with wave.open(str(large), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        for _ in range(300 * 2**20 // 320_000):
            file.writeframesraw(path.read_bytes()[44:])
    rows = []
    with serving(work / "state", "--no-page") as server, httpx2.Client(base_url=server.url, timeout=300) as client:

        def good(beside: str) -> None:
            began = time.monotonic()
            status = client.post("/v1/captions", files={"file": ("a.wav", path.read_bytes())}).status_code
            rows.append((f"a good request {beside}", f"{status} in {time.monotonic() - began:.2f} s"))

        good("alone")
        before = server.memory
        idle = [socket.create_connection(server.address) for _ in range(1000)]
        slow = [socket.create_connection(server.address) for _ in range(20)]
        for connection in slow:
            connection.sendall(HEAD % (b"audio/wav", 99_999) + bytes(1000))
        good("beside 1,000 idle and 20 slow connections")
        for connection in idle + slow:
            connection.close()
        for _ in range(20):
            with socket.create_connection(server.address) as connection:
                connection.sendall(HEAD % (b"audio/wav", path.stat().st_size) + path.read_bytes())
        good("after 20 clients that vanished")
        with large.open("rb") as file:
            answer = client.post("/v1/jobs", files={"file": ("large.wav", file)})
        good(f"beside a job of 300 MB ({answer.status_code})")
        rows.append(("memory before and after", f"{before:.0f} and {server.memory:.0f} MB"))
        active = re.findall(r"^enclap_active_requests (\S+)", client.get("/metrics").text, re.MULTILINE)
        rows.append(("places in the queue still taken", str(int(float(active[0])))))
    return rows


def hour(work: Path, seconds: float) -> list[tuple[str, str]]:
    """An hour whose captions are streamed; nine tenths of it are silent, so that it takes a minute or two."""
    path = work / "hour.wav"
    loud = (np.random.default_rng(0).normal(0, 0.1, 160_000) * 32_767).astype("<i2").tobytes()
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        for number in range(360):
            file.writeframes(bytes(len(loud)) if number % 10 else loud)
    memory, events = [], 0
    with serving(work / "state", "--no-page") as server, path.open("rb") as file:
        began = time.monotonic()
        content = {"files": {"file": ("hour.wav", file)}, "data": {"stream": "true"}}
        with httpx2.stream("POST", f"{server.url}/v1/captions", timeout=600, **content) as answer:
            for line in answer.iter_lines():
                if line == "event: caption":
                    events += 1
                    memory.append(server.memory)
        took = time.monotonic() - began
    quarters = " ".join(f"{memory[len(memory) * part // 4 - 1]:.0f}" for part in (1, 2, 3, 4))
    return [("an hour streamed (captions, seconds, MB after each quarter)", f"{events}, {took:.0f} s, {quarters}")]


def formats(work: Path, seconds: float) -> list[tuple[str, str]]:
    """Every container and codec that can be written here, then bodies that are no recording or no form at all."""
    boundary = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    bodies = {
        "a form that ends early": (b"--x\r\nfoo", "multipart/form-data; boundary=x"),
        "a form without an end": (boundary + b"abc", "multipart/form-data; boundary=x"),
        "a form of another boundary": (boundary + b"abc\r\n--x--\r\n", "multipart/form-data; boundary=y"),
        "a form without a boundary": (b"abc", "multipart/form-data"),
        "a header of 1 MB": (b"--x\r\nA: " + b"a" * 2**20, "multipart/form-data; boundary=x"),
        "1,000 fields": (
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n' * 1000,
            "multipart/form-data; boundary=x",
        ),
        "JSON": (b"{}", "application/json"),
        "text": (b"abc", "text/plain"),
        "no type": (b"abc", ""),
        "a picture as audio": (b"\x89PNG\r\n\x1a\n" + bytes(99), "audio/wav"),
    }
    with serving(work / "state", "--no-page") as server, httpx2.Client(base_url=server.url, timeout=60) as client:
        good = {
            name: client.post("/v1/captions", files={"file": (name, content)}).status_code
            for name, content in make_originals().items()
        }
        bad = [
            client.post("/v1/captions", content=content, headers={"Content-Type": kind} if kind else {}).status_code
            for content, kind in bodies.values()
        ]
    shown = ", ".join(f"{count} × {code}" for code, count in Counter(bad).items())
    return [
        ("containers and codecs captioned", f"{sum(code == 200 for code in good.values())} of {len(good)}"),
        ("malformed forms and wrong types", shown),
    ]


def damaged(work: Path, seconds: float) -> list[tuple[str, str]]:
    """Two thousand damaged files (of `make fuzz`) through HTTP, four at a time."""
    originals = make_originals()
    found: Counter[int] = Counter()
    with (
        serving(work / "state", "--no-page", "--max-seconds", "60") as server,
        httpx2.Client(base_url=server.url, timeout=300) as client,
        ThreadPoolExecutor(4) as pool,
    ):

        def ask(number: int) -> int:
            case = make_case(SEED, number, originals)
            return client.post("/v1/captions", files={"file": (case.name, case.content)}).status_code

        found.update(pool.map(ask, range(DAMAGED)))
        alive = client.get("/readyz").status_code
    shown = ", ".join(f"{count} × {code}" for code, count in sorted(found.items()))
    return [(f"{DAMAGED:,} damaged files", f"{shown}; then /readyz {alive}")]


def killed(work: Path, seconds: float) -> list[tuple[str, str]]:
    """SIGKILL in the middle of ten jobs, then another server on the same folder."""
    path = clip(work / "a.wav", 30)
    with serving(work / "state", "--no-page") as server, httpx2.Client(base_url=server.url, timeout=300) as client:
        files = {"file": ("a.wav", path.read_bytes())}
        ids = [client.post("/v1/jobs", files=files).json()["id"] for _ in range(10)]
        while not (kept := sum(len(client.get(f"/v1/jobs/{id}").json()["captions"]) for id in ids)):
            time.sleep(0.1)
        states = Counter(job["state"] for job in client.get("/v1/jobs").json()["jobs"])
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    with serving(work / "state", "--no-page") as server, httpx2.Client(base_url=server.url, timeout=300) as client:
        end = time.monotonic() + 600
        while time.monotonic() < end:
            jobs = [client.get(f"/v1/jobs/{id}").json() for id in ids]
            if all(job["state"] == "done" for job in jobs):
                break
            time.sleep(0.5)
        again = float(re.findall(r"^enclap_windows_total (\S+)", client.get("/metrics").text, re.MULTILINE)[0])
    whole = sum(job["state"] == "done" and [c["start"] for c in job["captions"]] == [0.0, 10.0, 20.0] for job in jobs)
    before = ", ".join(f"{count} {state}" for state, count in states.items())
    found = f"{before} and {kept} windows kept when killed; {whole} done afterwards, {again:.0f} windows captioned then"
    return [("ten jobs of three windows, killed", found)]


ROWS: dict[str, Callable[[Path, float], list[tuple[str, str]]]] = {
    row.__name__: row for row in (cold, overhead, clients, overload, connections, hour, formats, damaged, killed)
}


def main() -> None:
    """Measure the rows and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    print("| what | found |\n|---|---|")
    for name in arguments.rows.split(","):
        with tempfile.TemporaryDirectory() as folder:
            for what, found in ROWS[name](Path(folder), arguments.seconds):
                print(f"| {what} | {found} |", flush=True)
    load = f"load average {os.getloadavg()[0]:.1f}"
    print(f"\nMeasured {today()} with `python {' '.join(sys.argv)}` on {hardware()}, {load}.")


if __name__ == "__main__":
    main()
