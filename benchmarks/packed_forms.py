"""What reading and writing one subject costs the store in several forms: why ``take.lua`` packs bytes.

Usage: ``python -m benchmarks.packed_forms``. One subject with full windows: 20 + 60 + 60 older buckets.
Best of three runs of 5,000 rounds inside one script, in microseconds per subject.
"""

from __future__ import annotations

import redis

from benchmarks.take_script import valkey

ROUNDS = 5_000

SETUP = """
local HEAD, ENTRY, parts, tables = '<BI6I4I4B', '<BI4', {'x'}, {}
for id, older in ipairs({20, 60, 60}) do
  parts[#parts + 1] = struct.pack(HEAD, id, 35278500000, 10, 10 * (older + 1), older)
  tables[id] = {id, 35278500000, 10, 10 * (older + 1)}
  for i = 1, older do
    parts[#parts + 1] = struct.pack(ENTRY, i, 10)
    tables[id][2 * i + 3], tables[id][2 * i + 4] = i, 10
  end
end
local packed, msgpack, json = table.concat(parts), cmsgpack.pack(tables), cjson.encode(tables)
"""

FORMS = {
    "struct: three heads, three first entries": """
        local at = 2
        for id = 1, 3 do
          local _, newest, units, total, older = struct.unpack(HEAD, packed, at)
          local bucket, held = struct.unpack(ENTRY, packed, at + 16)
          at = at + 16 + 5 * older
        end""",
    "string.byte and multiplications: the same": """
        local at = 2
        for id = 1, 3 do
          local _, a, b, c, d, e, f, u, v, w, x, p, q, r, s, older = string.byte(packed, at, at + 15)
          local newest = a + b * 256 + c * 65536 + d * 16777216 + e * 4294967296 + f * 1099511627776
          local units, total = u + v * 256 + w * 65536 + x * 16777216, p + q * 256 + r * 65536 + s * 16777216
          local bucket, h, i, j, k = string.byte(packed, at + 16, at + 20)
          at = at + 16 + 5 * older
        end""",
    "struct: read, one unit more, write": """
        local at, out = 2, {'x'}
        for id = 1, 3 do
          local _, newest, units, total, older = struct.unpack(HEAD, packed, at)
          local bucket, held = struct.unpack(ENTRY, packed, at + 16)
          out[#out + 1] = struct.pack(HEAD, id, newest, units + round % 9, total, older)
          out[#out + 1] = string.sub(packed, at + 16, at + 15 + 5 * older)
          at = at + 16 + 5 * older
        end
        local written = table.concat(out)""",
    "cmsgpack: read, one unit more, write": """
        local windows = cmsgpack.unpack(msgpack)
        windows[1][3] = round
        local written = cmsgpack.pack(windows)""",
    "cjson: read, one unit more, write": """
        local windows = cjson.decode(json)
        windows[1][3] = round
        local written = cjson.encode(windows)""",
    "store: MGET and SET PX of the packed string": """
        redis.call('MGET', KEYS[1])
        redis.call('SET', KEYS[1], packed, 'PX', 3660000)""",
    "store: HMGET and HSET of nine fields, one per window and bucket": """
        redis.call('HMGET', KEYS[2], 't1', 'l1', '1:1', 't2', 'l2', '2:1', 't3', 'l3', '3:1')
        redis.call('HSET', KEYS[2], 't1', round, 'l1', round, '1:1', round, 't2', round, 'l2', round, '2:1', round,
          't3', round, 'l3', round, '3:1', round)""",
}


def measure_us(client: redis.Redis, form: str) -> float:
    """Run a form many times in one script and divide."""
    client.config_resetstat()
    client.eval(f"{SETUP} for round = 1, {ROUNDS} do {form} end", 2, "{b}string", "{b}hash")
    return float(client.info("commandstats")["cmdstat_eval"]["usec"]) / ROUNDS


def main() -> None:
    """Print a line per form."""
    with valkey() as client:
        buckets = {f"{window}:{n}": 10 for window, most in ((1, 21), (2, 61), (3, 61)) for n in range(most)}
        client.hset("{b}hash", mapping=buckets)
        for name, form in FORMS.items():
            print(f"{min(measure_us(client, form) for _ in range(3)):6.2f}  {name}")


if __name__ == "__main__":
    main()
