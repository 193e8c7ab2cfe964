"""Files spoiled at random, the same ones for the same seed: what typing, a broken disk and a stranger make of a text."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence

NUMBERS = (
    *(
        "0",
        "-1",
        "1",
        "2",
        "3",
        "7",
        "63",
        "64",
        "65",
        "1000",
        "4096",
        "65536",
        "65537",
        "999999",
        "1e3",
        "1e6",
        "1e18",
    ),
    *("9223372036854775807", "9223372036854775808", "1" * 30, "1" * 31, "1" * 5000, "-" + "9" * 400),
    *(
        "1e999",
        "-1e999",
        "1e-999",
        ".inf",
        "-.inf",
        ".nan",
        "nan",
        "inf",
        "NaN",
        "-0",
        "-0.0",
        "0.0",
        "1e-320",
        "5e-324",
    ),
    *(
        "0x10",
        "0o17",
        "1_000",
        "1__0",
        "1:30",
        "٣",
        "½",
        "1/0",
        "0/1",
        "1/3",
        "7/3",
        f"1/{'9' * 400}",
        f"{'9' * 400}/1",
    ),
    *(
        "10M",
        "1e300G",
        "1e308K",
        "-5M",
        "50%",
        "1e400%",
        "1h30m",
        "9" * 400 + "d",
        "0s",
        "1.2.3",
        "..",
        "...",
        "1e",
        "+",
    ),
)
RANGES = (
    *(
        "0..1000000000000000000 step 1",
        "1..65536",
        "1..65536 step 65535",
        "1..1000",
        "64..32",
        "5..5",
        "1..",
        "..1",
        "..",
    ),
    *("1..256", "1..4096", "0.1..16 step 0.1", "0.001..16 step 1e-300", "1e-5..100 step 1e-320", "1e-320..16 log"),
    *("1e-300..0.1 log", "0..1 log", "-5..5", "1..64 step 0", "1..64 step -1", "1..64 step nan", "1..64 log log"),
    *("1..1e999", "nan..nan", "1..64 step 1e999", "1..65536 log", "0.0000001..16", "1 .. 64", "1..64  step  3", "a..b"),
)
WORDS = (
    *(
        "",
        "~",
        "null",
        "true",
        "no",
        "off",
        "[]",
        "{}",
        "[[]]",
        "{a: {b: c}}",
        "[1, [2, 3]]",
        "none",
        "default",
        "auto",
    ),
    *("!!python/object/apply:os.system [id]", "!!python/name:os.system", "!!binary aGk=", "!!int 3", "!!set {a, b}"),
    *(
        "!own 4",
        "&a 1",
        "*a",
        "*mixers",
        "&a [*a]",
        "{<<: *a}",
        "<<: *mixers",
        "? [a, b]",
        "|",
        ">",
        "'",
        '"',
        "`",
        "@",
        "%",
    ),
    *(
        '"\\e[2J"',
        '"\\0"',
        '"\\uD800"',
        '"\\n\\n"',
        '"\\u202Egnp"',
        '"a\\u2028b"',
        "--- ",
        "...",
        "# ",
        ": ",
        "- ",
        "é",
        "名前",
    ),
    *(
        "../../etc/passwd",
        "/dev/zero",
        "a/b",
        "..",
        "os:system",
        "subprocess:Popen",
        "$(id)",
        "`id`",
        "%s%n",
        "{0.__class__}",
    ),
    *(
        "mixer_s16",
        "repmlpnet_t224",
        "spach_ms_xxs_mlp",
        "ffonly_tiny",
        "cyclemlp_b1",
        "resnet",
        "deit_s",
        "mnist5k",
        "imagenet",
    ),
    *(
        "repmlp_bottleneck",
        "repmlp_light",
        "class_token",
        "learned_class_token",
        "class_mlp",
        "tokens_to_token",
        "conv_patches",
    ),
    *(
        "{repmlp_bottleneck: {groups: 1..256, reduction: 1..64, partition: 1..64}}",
        "{none: {}}",
        "{attention: {heads: 1..256}}",
    ),
    *(
        "{external_attention: {heads: 1..256, expansion: 1..16, memory: 1..4096}}",
        "{resnet: {hidden: 1..4096}}",
        "bottleneck",
    ),
    *(
        "patch",
        "depth",
        "width",
        "stages",
        "merge",
        "merging",
        "head",
        "norm_eps",
        "layer_scale",
        "block",
        "stem",
        "norm",
    ),
    *(
        "images",
        "repeats_on_front",
        "timeout",
        "stop",
        "sampler",
        "keep",
        "rungs",
        "validation",
        "fit",
        "exact",
        "resolution",
    ),
)
HARM = (
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xc3\x28",
    b"\x1b[2J",
    b"\x07",
    b"\r",
    b"\t",
    b"\x80",
    b"\xed\xa0\x80",
    b"\x85",
)
_TOKEN = re.compile(r"[\w.]+|[^\w\s]|\s+")
_NUMBER = re.compile(r"[+-]?\d[\d_]*(\.\d+)?([eE][+-]?\d+)?")
_VALUE = re.compile(r"(?<=: )[^\n#{}\[\],]+|(?<=[\[,] )?[\w.]+(?=[,\]])")


def mutants(texts: Sequence[str], count: int, *, seed: int) -> Iterator[bytes]:
    """`count` spoiled files, each of one of `texts` with one to four mistakes."""
    for number in range(count):
        yield mutant(texts, random.Random(f"{seed}.{number}"))


def mutant(texts: Sequence[str], rng: random.Random) -> bytes:
    """One of `texts`, spoiled."""
    text = rng.choice(texts)
    for _ in range(rng.choice((1, 1, 2, 4))):
        harm = rng.choices(_HARMS, _WEIGHTS)[0]
        text = harm(text, rng, texts)
    data = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(3)
        if kind == 0:
            data = data[:at] + rng.choice(HARM) + data[at:]
        elif kind == 1:
            data = data[:at]
        elif at < len(data):
            data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    return data


Harm = Callable[[str, random.Random, Sequence[str]], str]


def _instead(pattern: re.Pattern[str], words: Sequence[str]) -> Harm:
    """Some match of `pattern` becomes one of `words`."""

    def harm(text: str, rng: random.Random, texts: Sequence[str]) -> str:
        found = [match.span() for match in pattern.finditer(text)]
        if not found:
            return text
        start, end = rng.choice(found)
        return text[:start] + rng.choice(words) + text[end:]

    return harm


def _lines(text: str, rng: random.Random, texts: Sequence[str]) -> str:
    lines = text.split("\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(6)
    if kind == 0:
        lines.insert(other, lines[at])
    elif kind == 1:
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == 2:
        del lines[at]
    elif kind == 3:
        lines[at] = " " * rng.choice((1, 2, 4)) + lines[at]
    elif kind == 4:
        lines[at] = lines[at][rng.choice((1, 2)) :]
    else:
        donor = rng.choice(texts).split("\n")
        start = rng.randrange(len(donor))
        lines[at:at] = donor[start : start + rng.choice((1, 3, 8))]
    return "\n".join(lines)


def _tokens(text: str, rng: random.Random, texts: Sequence[str]) -> str:
    tokens = _TOKEN.findall(text)
    if not tokens:
        return text
    at, other = rng.randrange(len(tokens)), rng.randrange(len(tokens))
    kind = rng.randrange(5)
    if kind == 0:
        tokens[at], tokens[other] = tokens[other], tokens[at]
    elif kind == 1:
        del tokens[at]
    elif kind == 2:
        tokens.insert(other, tokens[at])
    elif kind == 3:
        tokens[at] = rng.choice(_TOKEN.findall(rng.choice(texts)))
    else:
        tokens[at] = rng.choice(WORDS)
    return "".join(tokens)


def _bomb(text: str, rng: random.Random, texts: Sequence[str]) -> str:
    """Something short that stands for much, or something long."""
    at = rng.choice([match.start() for match in _VALUE.finditer(text)] or [0])
    end = re.compile(r"[\n#{}\[\],]|\Z").search(text, at)
    assert end
    laughs = "&l0 [" + ", ".join("x" * 9) + "]"
    for level in range(1, 10):
        laughs = f"&l{level} [{laughs}, " + ", ".join([f"*l{level - 1}"] * 9) + "]"
    depth = rng.choice((30, 150, 2000, 30000))
    many = rng.choice((100, 3000, 100_000))
    bomb = rng.choice(
        (
            laughs,
            "[" * depth + "]" * depth,
            "[" * depth,
            "{a: " * depth + "1" + "}" * depth,
            "{a: " * depth,
            "&a [*a, *a]",
            "&a {b: *a}",
            "x" * many,
            "1" * many + "x",
            "." * many + " x",
            "1.." + " " * many + "x",
            "1" + "_1" * many + "x",
            '"' + "\\n" * many + '"',
            "[" + ", ".join(map(str, range(1, many))) + "]",
            "[" + ", ".join(["dense"] * many) + "]",
            "[" + ", ".join(["{depth: 1, width: 8, merge: false}"] * (many // 10)) + "]",
            "{" + ", ".join(f"k{i}: 1" for i in range(many)) + "}",
        )
    )
    return text[:at] + bomb + text[end.start() :]


_HARMS: tuple[Harm, ...] = (
    _instead(_NUMBER, NUMBERS),
    _instead(_VALUE, RANGES),
    _instead(_VALUE, WORDS),
    _lines,
    _tokens,
    _bomb,
)
_WEIGHTS = (25, 20, 20, 20, 20, 3)
