"""The script that writes a model's name into a body, in LuaJIT behind a stand-in for Envoy's stream handle."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from envoymatching import all_routes, said
from lupa import luajit21
from msgspec import structs

from publisher.envoy.answer import rewrite
from publisher.envoy.files import METER_FILTER, REWRITE_FILTER
from publisher.envoy.routes import routes
from publisher.plan import plan
from tests.e2e.proxy import HOST, openai, publication

_HANDLE = """
return function(order, body)
  local headers, status, asked = {}, nil, false
  local buffer = {
    length = function() return #body end,
    getBytes = function(_, from, length)
      assert(length > 0 and from >= 0 and from + length <= #body, "outside of the body")
      return string.sub(body, from + 1, from + length)
    end,
    setBytes = function(_, bytes) body = bytes end,
  }
  local metadata = { get = function(_, name)
    assert(name == "envoy.filters.http.ext_authz")
    return order and { rewrite = order ~= "" and order or nil }
  end }
  envoy_on_request({
    streamInfo = function() return { dynamicMetadata = function() return metadata end } end,
    body = function() asked = true; return buffer end,
    headers = function() return { replace = function(_, name, value) headers[name] = value end } end,
    respond = function(_, answer) status = answer[":status"] end,
  })
  return body, headers["content-length"], status, asked
end
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """What goes on to the server, or why nothing does."""

    body: bytes
    length: bytes | None
    status: bytes | None
    asked: bool  # for the body


def run(order: str | None, body: bytes) -> Sent:
    """A request's way through the script."""
    lua = luajit21.LuaRuntime(encoding=None)
    lua.execute(rewrite().encode())
    return Sent(*lua.execute(_HANDLE.encode())(None if order is None else order.encode(), body))


@pytest.mark.parametrize(
    ("order", "body", "sent"),
    [
        ('9 12 13 "llama3.1:8b"', b'{"model":"x"}', b'{"model":"llama3.1:8b"}'),
        ('9 20 21 "x"', b'{"model":"llama3.1"  }', None),  # of another size
        ('9 12 13 "\N{HANGUL SYLLABLE GA} b"', b'{"model":"x"}', '{"model":"\N{HANGUL SYLLABLE GA} b"}'.encode()),
        ("0 1 1 ab", b"x", b"ab"),
        ("0 0 1 ab", b"x", b"abx"),
        ("1 1 1 ab", b"x", b"xab"),
    ],
)
def test_the_bytes_are_replaced_and_the_length_with_them(order: str, body: bytes, sent: bytes | None) -> None:
    """At the beginning, at the end, longer, shorter, of more bytes than characters."""
    told = run(order, body)
    if sent is None:
        assert (told.body, told.status) == (body, b"503")
    else:
        assert told == Sent(sent, str(len(sent)).encode(), None, asked=True)


@pytest.mark.parametrize("order", ["2 1 3 x", "0 9 3 x", "x", "1 2 4 x", "-1 2 3 x"])
def test_an_order_that_does_not_fit_ends_the_call(order: str) -> None:
    """What the server could take for another model does not reach it."""
    told = run(order, b"abc")
    assert (told.body, told.status) == (b"abc", b"503")


@pytest.mark.parametrize("order", [None, ""])
def test_without_an_order_nothing_is_looked_at(order: str | None) -> None:
    """The body is not even held."""
    assert run(order, b"abc") == Sent(b"abc", None, None, asked=False)


def test_it_is_on_wherever_a_body_may_name_a_model() -> None:
    """So an alias works from its commit on, by the routes that there are; ``TENANT/NAME`` by all of them."""
    one = openai("u1", "/llm", model="llm")
    (config,) = said(routes(plan([one, publication("u2", "/models/iris")])))
    (host,) = config["virtual_hosts"]
    found = [(route["name"], set(route["typed_per_filter_config"])) for route in all_routes(host["matcher"])]
    assert {name for name, filters in found if REWRITE_FILTER in filters} == {"u1/below", "u1/body", f"{HOST}/openai"}
    assert all(METER_FILTER not in filters or REWRITE_FILTER in filters for _, filters in found)
    named = structs.replace(one, aliases=("gpt-4o",), model_id="llama3.1:8b")
    assert routes(plan([named])).text() == routes(plan([one])).text()
