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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import numpy as np

from enclap.captioner import Captioner
from tables import hardware, today

READY = re.compile(r"is ready on (http://\S+);")
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@dataclass(frozen=True)
class Server:
    """A server of its own process."""

    url: str
    process: subprocess.Popen[str]
    seconds: float

    @property
    def memory(self) -> float:
        """MB that it holds now."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmRSS:\s+(\d+)", text)[0]) / 1024


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[Server]:
    """A server that listens; seconds until it did."""
    began = time.monotonic()
    command = [sys.executable, "-m", "enclap.cli.main", "serve", "--port", "0", "--state-dir", str(folder), *options]
    log = folder.with_suffix(".log")
    with log.open("w") as errors, subprocess.Popen(command, stderr=errors, text=True) as process:
        try:
            while not (match := READY.search(log.read_text())):
                assert process.poll() is None, log.read_text()
                time.sleep(0.01)
            yield Server(match[1], process, time.monotonic() - began)
        finally:
            process.kill()


def clip(path: Path, seconds: float, seed: int = 0) -> Path:
    """A clip of noise that rises and falls."""
    generator = np.random.default_rng(seed)
    samples = generator.normal(0, 0.1, round(seconds * 16_000)) * np.linspace(0.2, 1, round(seconds * 16_000))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes((samples * 32_767).clip(-32_768, 32_767).astype("<i2").tobytes())
    return path


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
    """The same clip by the server and by a captioner in this process, in turns."""
    path = clip(work / "a.wav", 10)
    captioner = Captioner.from_pretrained("mini")
    captioner.caption(path)
    served, alone = [], []
    with serving(work / "state", "--no-page") as server, httpx2.Client(base_url=server.url, timeout=60) as client:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.monotonic()
            captioner.caption(path)
            alone.append(time.monotonic() - began)
            began = time.monotonic()
            client.post("/v1/captions", files={"file": ("a.wav", path.read_bytes())}).raise_for_status()
            served.append(time.monotonic() - began)
    medians = [1000 * statistics.median(times) for times in (served, alone)]
    return [
        ("10-s clip, median over the captioner's", f"{medians[0] - medians[1]:+.0f} ms ({medians[1]:.0f} ms alone)")
    ]


def clients(work: Path, seconds: float) -> list[tuple[str, str]]:
    """16 clients at once, against one command line over the same files."""
    paths = [clip(work / f"{number}.wav", 10, number) for number in range(48)]
    began = time.monotonic()
    command = [sys.executable, "-m", "enclap.cli.main", "caption", *map(str, paths), "--format", "jsonl"]
    subprocess.run(command, check=True, stdout=subprocess.PIPE)
    line = len(paths) / (time.monotonic() - began)

    async def ask(url: str) -> tuple[float, list[float]]:
        waiting, times = list(paths), []
        async with httpx2.AsyncClient(base_url=url, timeout=120) as client:
            await send(client, paths[0])

            async def one() -> None:
                while waiting:
                    path = waiting.pop()
                    began = time.monotonic()
                    (await send(client, path)).raise_for_status()
                    times.append(time.monotonic() - began)

            began = time.monotonic()
            await asyncio.gather(*(one() for _ in range(16)))
            return len(paths) / (time.monotonic() - began), times

    with serving(work / "state", "--no-page") as server:
        rate, times = asyncio.run(ask(server.url))
    ideal = 16 / rate
    slowest = statistics.quantiles(times, n=100)[98]
    return [
        ("16 clients, clips/s against one command line", f"{rate / line:.2f} ({rate:.1f} against {line:.1f})"),
        ("16 clients, p99 against the ideal queue", f"{slowest / ideal:.1f} × ({slowest:.2f} s)"),
    ]


def overload(work: Path, seconds: float) -> list[tuple[str, str]]:
    """Ten times as many clients as the queue takes, for a while."""
    path = clip(work / "a.wav", 10)
    found: Counter[int] = Counter()
    refused: list[float] = []
    texts: set[str] = set()

    async def flood(url: str) -> None:
        end = time.monotonic() + seconds
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(base_url=url, timeout=120, limits=limits) as client:

            async def one() -> None:
                while time.monotonic() < end:
                    began = time.monotonic()
                    answer = await send(client, path)
                    found[answer.status_code] += 1
                    if answer.status_code == 429:
                        refused.append(time.monotonic() - began)
                        await asyncio.sleep(0.5)
                    else:
                        texts.add(answer.text)

            await asyncio.gather(*(one() for _ in range(80)))

    with serving(work / "state", "--no-page", "--queue", "8") as server:
        httpx2.post(f"{server.url}/v1/captions", files={"file": ("a.wav", path.read_bytes())}, timeout=60)
        before = server.memory
        asyncio.run(flood(server.url))
        after = server.memory
        alive = httpx2.get(f"{server.url}/readyz").status_code
    share = sum(wait < 0.05 for wait in refused) / max(1, len(refused))
    return [
        (f"80 clients, a queue of 8, {seconds:.0f} s", ", ".join(f"{count} × {code}" for code, count in found.items())),
        ("… different answers for one clip", str(len(texts))),
        ("… refusals within 50 ms, as the busy client sees them", f"{share:.0%}"),
        ("… memory before and after", f"{before:.0f} and {after:.0f} MB; then /readyz {alive}"),
    ]


def connections(work: Path, seconds: float) -> list[tuple[str, str]]:
    """A 300-MB upload, 20 clients that send 1 kB/s and 1,000 connections that say nothing, beside a good request."""
    path = clip(work / "a.wav", 10)
    head = b"POST /v1/captions HTTP/1.1\r\nHost: localhost\r\nContent-Type: audio/wav\r\nContent-Length: 9999\r\n\r\n"
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    large = clip(work / "large.wav", 300 * 2**20 / 32_000)
    with serving(work / "state", "--no-page") as server:
        port = int(server.url.rpartition(":")[2])
        before = server.memory
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(1000)]
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for connection in slow:
            connection.sendall(head + bytes(1000))
        began = time.monotonic()
        good = httpx2.post(f"{server.url}/v1/captions", files={"file": ("a.wav", path.read_bytes())}, timeout=60)
        waited = time.monotonic() - began
        with large.open("rb") as file:
            answer = httpx2.post(f"{server.url}/v1/jobs", files={"file": ("large.wav", file)}, timeout=120)
        memory = server.memory
        for connection in idle + slow:
            connection.close()
        alive = httpx2.get(f"{server.url}/readyz").status_code
    return [
        ("beside 1,000 idle and 20 slow connections", f"{good.status_code} in {waited:.2f} s"),
        ("300 MB as a job", f"{answer.status_code}; memory {before:.0f} to {memory:.0f} MB; then /readyz {alive}"),
    ]


def damaged(work: Path, seconds: float) -> list[tuple[str, str]]:
    """Damaged copies of the examples through HTTP, as many as the time allows."""
    sources = [
        path.read_bytes() for path in sorted(EXAMPLES.glob("*.*")) if path.suffix in {".wav", ".ogg", ".mp3", ".flac"}
    ]
    choose = random.Random(0)
    found: Counter[int] = Counter()
    with serving(work / "state", "--no-page", "--max-seconds", "60") as server, httpx2.Client(timeout=60) as client:
        end = time.monotonic() + seconds
        while time.monotonic() < end and found.total() < 2000:
            content = bytearray(choose.choice(sources)[: choose.choice([50, 500, 5000, 20_000])])
            for _ in range(choose.randrange(1, 30)):
                content[choose.randrange(min(len(content), choose.choice([64, len(content)])))] = choose.randrange(256)
            name = f"a{choose.choice(['.wav', '.mp3', '.ogg', '.flac', '.mp4', '.m3u8', ''])}"
            found[client.post(f"{server.url}/v1/captions", files={"file": (name, bytes(content))}).status_code] += 1
    return [("damaged files", ", ".join(f"{count} × {code}" for code, count in sorted(found.items())))]


def killed(work: Path, seconds: float) -> list[tuple[str, str]]:
    """SIGKILL in the middle of ten jobs, then another server on the same folder."""
    path = clip(work / "a.wav", 60)
    with serving(work / "state", "--no-page") as server:
        files = {"file": ("a.wav", path.read_bytes())}
        ids = [httpx2.post(f"{server.url}/v1/jobs", files=files, timeout=60).json()["id"] for _ in range(10)]
        time.sleep(3)
        states = Counter(job["state"] for job in httpx2.get(f"{server.url}/v1/jobs", timeout=60).json()["jobs"])
        server.process.send_signal(signal.SIGKILL)
    with serving(work / "state", "--no-page") as server:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            jobs = [httpx2.get(f"{server.url}/v1/jobs/{id}", timeout=60).json() for id in ids]
            if all(job["state"] == "done" for job in jobs):
                break
            time.sleep(0.5)
    whole = sum(
        job["state"] == "done" and [c["start"] for c in job["captions"]] == [10.0 * n for n in range(6)] for job in jobs
    )
    before = ", ".join(f"{count} {state}" for state, count in states.items())
    return [("ten jobs, killed", f"{before} when killed; {whole} done afterwards, each window once")]


ROWS: dict[str, Callable[[Path, float], list[tuple[str, str]]]] = {
    row.__name__: row for row in (cold, overhead, clients, overload, connections, damaged, killed)
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
