"""OpenAI's own client for what is more than a chat: pictures, speech, forms, several prompts; and what each costs."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator
from math import ceil
from typing import Any

import openai
import pytest
from openai import OpenAI
from ownvalkey import own_valkey

from tests.e2e.meteredrows import TENANT, Rows, metered_rows
from tests.e2e.proxy import HOST
from tests.tables.metered_words import DONE, HELLO, LLM, TEXT_BYTES, Answer, Stream, Whole, chunk, told, usage

PICTURE = b"\x89PNG" + b"\0" * 4_500_000
SOUND = b"\xff\xfb" * 100_000


@pytest.fixture(scope="module")
def rows(valkey_binary: str) -> Iterator[Rows]:
    """A gateway whose model server answers by script."""
    with own_valkey(valkey_binary) as valkey, metered_rows(valkey.url) as made:
        yield made


@pytest.fixture(params=[f"/v1/models/{LLM.name}", "/v1"], ids=["the model's own URL", "the host's"])
def client(rows: Rows, request: pytest.FixtureRequest) -> Iterator[OpenAI]:
    """OpenAI's client; it does not try again."""
    base = f"http://127.0.0.1:{rows.envoy.ports['http']}{request.param}"
    with OpenAI(
        base_url=base, api_key=rows.keys[TENANT], default_headers={"Host": HOST}, max_retries=0, timeout=20
    ) as made:
        yield made


def cost(rows: Rows, answer: Answer, call: Callable[[], Any]) -> tuple[Any, int]:
    """What the client makes of an answer, and what the call costs."""
    rows.forget()
    rows.server.expect(answer)
    rows.server.may_answer.set()
    made = call()
    return made, rows.settled(LLM)


def test_a_picture_of_six_megabytes(rows: Rows, client: OpenAI) -> None:
    """It arrives whole and costs what was told."""
    text = base64.b64encode(PICTURE).decode()
    answer = Whole(json.dumps({"created": 1, "data": [{"b64_json": text}], "usage": usage(4_210)}).encode())
    made, charged = cost(rows, answer, lambda: client.images.generate(model=LLM.name, prompt="a cat"))
    assert base64.b64decode(made.data[0].b64_json) == PICTURE
    assert charged == 4_210


def test_many_long_embeddings(rows: Rows, client: OpenAI) -> None:
    """An answer of five megabytes arrives whole and costs what was told."""
    vectors = [{"object": "embedding", "index": number, "embedding": [0.0123456789] * 3_072} for number in range(128)]
    answer = told(2_560, object="list", model="m", data=vectors)
    made, charged = cost(rows, answer, lambda: client.embeddings.create(model=LLM.name, input=["word"] * 128))
    assert [len(one.embedding) for one in made.data] == [3_072] * 128
    assert charged == 2_560


def test_a_moderation_that_tells_no_usage(rows: Rows, client: OpenAI) -> None:
    """Its model generates nothing: it costs what its input is taken for, and no whole context."""
    answer = Whole(b'{"id":"modr-1","model":"m","results":[]}')
    made, charged = cost(rows, answer, lambda: client.moderations.create(model=LLM.name, input="Good morning"))
    assert made.id == "modr-1"
    assert charged == ceil(len(rows.server.bodies[0]) / TEXT_BYTES)


def test_streams_that_tell_no_usage_leave_room_for_others(rows: Rows, client: OpenAI) -> None:
    """Twelve of 300 tokens cost what they streamed, not a context each: an hour of tokens has room for many more."""
    rows.forget()
    rows.server.expect(Stream((*(chunk() for _ in range(300)), DONE)))
    rows.server.may_answer.set()
    for _ in range(12):
        with client.chat.completions.create(model=LLM.name, messages=HELLO, stream=True) as stream:
            assert len([one for one in stream if one.choices[0].delta.content]) == 300
    asked = sum(ceil(len(body) / TEXT_BYTES) for body in rows.server.bodies)
    assert rows.settled(LLM) == 12 * 300 + asked


def test_speech(rows: Rows, client: OpenAI) -> None:
    """The sound arrives whole; the call costs its input."""
    asked = {"model": LLM.name, "input": "Good morning to everybody out there!", "voice": "alloy"}
    made, charged = cost(rows, Whole(SOUND, "audio/mpeg"), lambda: client.audio.speech.create(**asked))
    assert made.content == SOUND
    assert charged == ceil(len(rows.server.bodies[0]) / TEXT_BYTES)


def test_a_recording_is_written_down(rows: Rows, client: OpenAI) -> None:
    """A form passes, and costs what its answer tells."""
    answer = Whole(json.dumps({"text": "Good morning", "usage": {"type": "tokens", **usage(31)}}).encode())
    recording = ("a.mp3", io.BytesIO(SOUND), "audio/mpeg")
    made, charged = cost(rows, answer, lambda: client.audio.transcriptions.create(model=LLM.name, file=recording))
    assert made.text == "Good morning"
    assert SOUND in rows.server.bodies[0]
    assert charged == 31


def test_a_picture_is_edited(rows: Rows, client: OpenAI) -> None:
    """The same for pictures."""
    answer = Whole(json.dumps({"created": 1, "data": [{"b64_json": "AAAA"}], "usage": usage(77)}).encode())
    picture = ("a.png", io.BytesIO(PICTURE[:10_000]), "image/png")
    made, charged = cost(rows, answer, lambda: client.images.edit(model=LLM.name, image=picture, prompt="a hat"))
    assert made.data[0].b64_json == "AAAA"
    assert charged == 77


def test_several_prompts_and_the_best_of_several_answers(rows: Rows, client: OpenAI) -> None:
    """All that was generated is charged, beyond a context too."""
    texts = [{"index": number, "text": "x", "finish_reason": "stop", "logprobs": None} for number in range(3)]
    answer = told(40_000, id="c", object="text_completion", created=1, model="m", choices=texts)
    made, charged = cost(
        rows,
        answer,
        lambda: client.completions.create(model=LLM.name, prompt=["a", "b", "c"], best_of=4, max_tokens=4_000),
    )
    assert [choice.text for choice in made.choices] == ["x", "x", "x"]
    assert charged == 40_000


def test_an_inline_image_fits_an_hour_of_tokens(rows: Rows, client: OpenAI) -> None:
    """Its bytes of base64 are not held as tokens."""
    image = f"data:image/png;base64,{base64.b64encode(PICTURE[:1_000_000]).decode()}"
    content: Any = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": image}}]
    choice = {"index": 0, "message": {"role": "assistant", "content": "A cat."}, "finish_reason": "stop"}
    answer = told(1_100, id="c", object="chat.completion", created=1, model="m", choices=[choice])
    made, charged = cost(
        rows,
        answer,
        lambda: client.chat.completions.create(
            model=LLM.name, messages=[{"role": "user", "content": content}], max_tokens=100
        ),
    )
    assert (made.choices[0].message.content, charged) == ("A cat.", 1_100)


@pytest.mark.parametrize(
    ("field", "value"), [("background", True), ("previous_response_id", "resp_1"), ("conversation", "conv_1")]
)
def test_what_is_refused_is_named(rows: Rows, client: OpenAI, field: str, value: Any) -> None:
    """Work after the answer, and what others may have stored: refused by the field's name; the server sees nothing."""
    rows.server.expect(None)
    with pytest.raises(openai.APIStatusError) as refused:
        client.responses.create(model=LLM.name, input="Hello!", **{field: value})
    assert refused.value.param == field
    assert f"'{field}'" in refused.value.message
    assert not rows.server.bodies


def test_a_client_that_asks_for_too_many_answers_is_told_the_most(client: OpenAI) -> None:
    """128, as with OpenAI."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=LLM.name, messages=[{"role": "user", "content": "x"}], n=129)
    assert (refused.value.param, "128" in refused.value.message) == ("n", True)
