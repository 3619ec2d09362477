"""What the hot modules make of odd questions: ``python -m tests.fuzz.transcript URL SEED COUNT QUESTIONS``.

A line for each question with its answer, and at the end what was counted. Time goes by steps of ours, and randomness is
none, so two runs of one seed say the same, byte by byte, whatever form the modules have (``hatch_build.py``). The first
run writes its questions into the file QUESTIONS, the next one reads them there: protobuf writes a map in another order
in each process. URL: a Valkey database, which is emptied.
"""

from __future__ import annotations

import dataclasses
import random
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

sys.path[:0] = [str(Path(__file__).parents[1] / "support")]

import redis
from decisionworld import START_MS
from decisionworld import World as Records
from gatebench import Catalog
from prometheus_client import CollectorRegistry, generate_latest

from catalog.changes import Delete, Put
from catalog.keys.secrets import SECRET_BYTES, Secrets
from catalog.records import ref
from extauth.answers import probing
from extauth.answers.refusal_log import RefusalLog
from extauth.batch import Ask, Checker
from extauth.denials import Denials
from extauth.edge import AnswerEncoder, CheckService, masked_key
from extauth.events import Events
from extauth.lanes.table import LaneTable
from extauth.metrics import CheckMetrics
from extauth.records.cache import RecordCache
from extauth.request.reading import read_body
from extauth.reserving import Reserver
from extauth.stores import Budgets, Stores
from protos.access_log_pb2 import StreamAccessLogsMessage
from ratelimit.descriptors.deciding import Ordinary, OrdinaryMetrics
from ratelimit.descriptors.reading import parse
from ratelimit.names import UNFENCED
from ratelimit.service.edge import RateLimitService
from ratelimit.service.endings_edge import EndingsService
from ratelimit.service.stream_done import StreamDone
from ratelimit.windows.budgets import Taken
from ratelimit.windows.limiter import Limiter
from runtime.clock import SystemClock
from runtime.store.offset import ClockOffset
from tests.fuzz import descriptors
from tests.fuzz.calls import Source
from tests.fuzz.found import Tally
from tests.fuzz.texts import mutated, odd_text
from tests.fuzz.world import World

BATCH: Final = 20
CHURN_EVERY: Final = 7  # batches
STEP_MS: Final = 700
_CLOCK: Final = struct.Struct("<d")
_HEAD_AT: Final = 4  # behind EVALSHA, its script, the count of keys, the keys and the epoch
_TYPES: Final = (
    "application/json", "application/json; charset=utf-8", "APPLICATION/JSON", "text/plain", "", "application/json;x",
    "multipart/form-data; boundary=b", "application/json; charset=latin-1",
)  # fmt: skip
_MEMBERS: Final = (
    '"model":"llm"', '"Model":"llm"', '"model":"l\\u006cm"', '"max_tokens":7', '"max_tokens":-1', '"max_tokens":1.5',
    '"max_tokens":9007199254740993', '"max_tokens":null', '"max_completion_tokens":1e3', '"max_output_tokens":0',
    '"n":2', '"n":"2"', '"stream":true', '"stream":"yes"', '"best_of":3', '"stream_options":{"include_usage":true}',
    '"messages":[{"role":"user","content":"hi"}]', '"input":["a",[1,2]]', '"input":null', '"prompt":"a"', '"":0',
    '"messages":[{"content":[{"type":"image_url","image_url":{"url":"data:,"}}]}]', '"tools":[{}]', '"x":"\\ud800"',
    '"a":{"b":[[[[]]]]}',
)  # fmt: skip


class Questions:
    """Made and written down, or read again."""

    def __init__(self, file: Path) -> None:
        self._again = iter(file.read_text().splitlines()) if file.exists() else None
        self._file = file

    def asked(self, make: Callable[[], bytes]) -> bytes:
        """The next one."""
        made = make()  # in any case, as it moves the world's chance on
        if self._again is not None:
            return bytes.fromhex(next(self._again))
        with self._file.open("a") as written:
            written.write(f"{made.hex()}\n")
        return made


class Kept(Catalog):
    """A catalog whose records are kept in plain Python."""

    def __init__(self, records: Records, secrets: Secrets) -> None:
        super().__init__("", secrets)
        self._records = records

    def commit(self, *changes: Any) -> None:
        """Write them in one act."""
        for change in changes:
            if isinstance(change, Put):
                self._records.put(change.record)
            elif isinstance(change, Delete):
                self._records.remove(ref(change.kind, change.id))


class StandingStore:
    """A Valkey that goes by a clock of ours."""

    def __init__(self, url: str) -> None:
        self.client = redis.Redis.from_url(url)
        self.client.flushdb()
        self.now_ms = START_MS
        self.offset = ClockOffset()

    def execute(self, *command: Any) -> Any:
        """Send a command; a script of the limiter's is told the time."""
        words = list(command)
        if words[0] in {"EVALSHA", "EVAL"}:
            head = _HEAD_AT + int(words[2])
            words[head] = words[head][: -_CLOCK.size] + _CLOCK.pack(self.now_ms)
        return self.client.execute_command(*words)

    def take(self, _budgets: Budgets, asks: Mapping[int, Ask], *, deadline_ms: float) -> dict[int, Taken]:
        """Take as a gate does, by nobody's epoch."""
        del deadline_ms
        now_ms = float(self.now_ms)
        self.offset.learn(sent_ms=now_ms, store_ms=self.now_ms, received_ms=now_ms)
        fence = UNFENCED.format(0)
        limiter = Limiter(cell="0", epoch_key=fence, feed_key=fence, writes_format=lambda: 2)
        return {cell: self._proved(limiter.take(self.execute, ask.draws, epoch=""), ask) for cell, ask in asks.items()}

    def _proved(self, taken: Taken, ask: Ask) -> Taken:
        """Records do not change within a batch here."""
        return dataclasses.replace(taken, epoch=ask.epoch, spent_us=0)


def transcript(url: str, seed: str, count: int, questions: Questions) -> Iterator[str]:
    """Yield its lines."""
    store, registry = StandingStore(url), CollectorRegistry()
    try:
        for part in (_bodies, _checks, _descriptors, _endings):
            yield from part(random.Random(f"{seed}:{part.__name__}"), store, registry, count, questions)
    finally:
        store.client.close()
    yield from (line for line in generate_latest(registry).decode().splitlines() if "_created" not in line)


def _bodies(
    rng: random.Random, _store: StandingStore, _registry: CollectorRegistry, count: int, questions: Questions
) -> Iterator[str]:
    for _ in range(count):
        raw = questions.asked(lambda: _body(rng))
        kind = rng.choice(_TYPES) if rng.random() < 0.3 else _TYPES[0]
        how = {"takes_form": rng.random() < 0.3, "is_text": rng.random() < 0.3}
        slow = {"slow_bytes": rng.choice((0, 10, 100_000))} if rng.random() < 0.3 else {}
        yield f"body {_shown(raw)} {kind} {how} {slow}: {_said(lambda: read_body(raw, kind, **how, **slow))}"  # noqa: B023  called at once


def _body(rng: random.Random) -> bytes:
    raw = ("{" + ",".join(rng.choices(_MEMBERS, k=rng.randrange(7))) + "}").encode("utf-8", "surrogatepass")
    if rng.random() < 0.3:
        raw = mutated(rng, raw, b'{"model":1}')
    if rng.random() < 0.05:
        raw = raw[:-1] + b"," * (raw != b"{}") + b'"pad":"' + b"x" * rng.choice((2_000, 70_000)) + b'"}'
    return raw


def _checks(
    rng: random.Random, store: StandingStore, registry: CollectorRegistry, count: int, questions: Questions
) -> Iterator[str]:
    records, metrics = Records(), CheckMetrics(registry)
    secrets = Secrets(
        peppers={1: rng.randbytes(SECRET_BYTES)}, current_pepper=1, mac_keys={1: rng.randbytes(SECRET_BYTES)},
        current_mac_key=1, jwt_key=rng.randbytes(SECRET_BYTES), recovery_key=rng.randbytes(SECRET_BYTES),
    )  # fmt: skip
    world = World(Kept(records, secrets), rng).build()
    cache = RecordCache()
    checker = Checker(
        cache=cache,
        records=records,
        limiter=store,
        secrets=secrets,
        reserve=Reserver(random.Random(0).randbytes),
        denials=Denials(lambda: float(store.now_ms), lambda _cell: store.offset),
        lanes=LaneTable(cache, max_bytes=2**20, clock_ms=lambda: float(store.now_ms)),
        now_ms=lambda: store.now_ms,
        wall_ms=lambda: store.now_ms,
        on=Events(gathered=metrics.gathered, laned=metrics.lane_calls.add, denied=metrics.denied.add),
    )
    service = CheckService(
        lambda calls, deadline_ms: checker.check(calls, Stores.one(store.execute), deadline_ms),
        lambda verdicts, _spent_ms: metrics.batch(verdicts, 1.0),
        lambda: BATCH,
        SystemClock(),
        refusals=RefusalLog(lambda: 0.0, masked_key, metrics.line_left_out),
        release=lambda _reservation: None,
        encoder=AnswerEncoder(lambda call: probing.answered(call, secrets)),
    )
    source = Source(world, random.Random(rng.random()))  # of its own: it draws by the length of what it bends
    for number in range(count // BATCH):
        if number % CHURN_EVERY == 0:
            world.churn(rng)
        store.now_ms += rng.randrange(STEP_MS)
        yield from _answered(
            "check", service.answer, [questions.asked(lambda: source.payload()[1]) for _ in range(BATCH)]
        )


def _descriptors(
    rng: random.Random, store: StandingStore, registry: CollectorRegistry, count: int, questions: Questions
) -> Iterator[str]:
    ordinary = Ordinary(cells=1, metrics=OrdinaryMetrics(registry), writes_format=lambda: 2)
    ordinary.use(parse(descriptors.FILE))
    told: list[Any] = []
    service = RateLimitService(
        StreamDone(told.append, lambda: told.append("unreadable")),
        lambda asked, _deadline_ms: ordinary.decide(asked, store.execute, 0),
        lambda: None,
        on_fault=lambda calls: told.append(f"fault {calls} {sys.exc_info()[1]!r}"),
        denies_undecided=lambda: True,
    )
    target = descriptors.DescriptorTarget(service, Tally())
    service._on_fault = lambda calls: told.append(f"fault {calls}")
    for _ in range(count // BATCH):
        store.now_ms += rng.randrange(STEP_MS)
        yield from _answered(
            "limits", service.answer, [questions.asked(lambda: target._payload(rng)) for _ in range(BATCH)]
        )
        yield f"told {told}"
        told.clear()


def _endings(
    rng: random.Random, _store: StandingStore, _registry: CollectorRegistry, count: int, questions: Questions
) -> Iterator[str]:
    told: list[Any] = []
    service = EndingsService(
        told.extend,
        on_unreadable=lambda calls: told.append(f"unreadable {calls}"),
        on_fault=lambda: told.append("fault"),
        on_delay=lambda delay_s: told.append(f"delay {delay_s}"),
        wall_ms=lambda: START_MS,
    )
    for _ in range(count):
        payload = questions.asked(lambda: _bent_ending(rng))
        yield f"ending {_shown(payload)}: {_said(lambda: service.take(payload))} {told}"  # noqa: B023
        told.clear()


def _bent_ending(rng: random.Random) -> bytes:
    bent, payload = rng.random() < 0.3, _ending(rng).SerializeToString()
    return mutated(random.Random(rng.random()), payload, payload) if bent else payload


def _ending(rng: random.Random) -> StreamAccessLogsMessage:
    message = StreamAccessLogsMessage()
    for _ in range(rng.randrange(4)):
        entry = message.http_logs.log_entry.add()
        common, response = entry.common_properties, entry.response
        common.duration.seconds, common.duration.nanos = rng.choice((0, 3, -1, 10**9)), rng.choice((0, 5_000_000, -1))
        common.intermediate_log_entry = rng.random() < 0.1
        response.response_code.value = rng.choice((0, 200, 200, 404, 500, 2**32 - 1))
        response.response_body_bytes = rng.choice((0, 17, 2**63))
        response.response_code_details = rng.choice(("via_upstream", "", odd_text(rng)))
        response.response_headers["content-type"] = rng.choice(("application/json", "text/event-stream", odd_text(rng)))
        if rng.random() < 0.5:
            common.time_to_last_downstream_tx_byte.seconds = 1
        if rng.random() < 0.2:
            common.response_flags.delay_injected = rng.random() < 0.5
            common.response_flags.MergeFromString(rng.choice((b"", b"\x20\x01")))  # one of those that we do not name
        noted = common.metadata.filter_metadata
        if rng.random() < 0.9:
            noted["envoy.filters.http.ext_authz"]["reservation"] = rng.choice(("0a1" + "b" * 30, "", odd_text(rng)))
            noted["envoy.filters.http.ext_authz"]["publication"] = rng.choice(("0a1u", "", odd_text(rng)))
        for name in rng.sample(
            ("total", "prompt", "completion", "cached", "events", "fault", "id", odd_text(rng)), k=3
        ):
            noted["tollkeeper.usage"][name] = rng.choice(
                (0.0, 7.0, -1.0, 1e308, float("nan"), float("inf"), 2.5, "12", True)
            )
    return message


def _answered(kind: str, answer: Callable[..., Sequence[Any]], payloads: Sequence[bytes]) -> Iterator[str]:
    for payload, one in zip(payloads, answer(payloads, 1e15), strict=True):
        yield f"{kind} {_shown(payload)}: {one.hex() if isinstance(one, bytes) else one!r}"


def _shown(asked: bytes) -> str:
    return asked[:1_000].hex() + f"+{len(asked) - 1_000}" * (len(asked) > 1_000)


def _said(work: Callable[[], Any]) -> str:
    """What comes out of it, or which error: an error's class and text are part of what it says."""
    try:
        return repr(work())
    except Exception as error:  # noqa: BLE001  whatever it is
        return f"{type(error).__name__}: {error}"


def main() -> None:
    """Print it."""
    url, seed, count, questions = sys.argv[1:]
    for line in transcript(url, seed, int(count), Questions(Path(questions))):
        print(line)


if __name__ == "__main__":
    main()
