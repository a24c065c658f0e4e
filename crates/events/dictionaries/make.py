#!/usr/bin/env python3
"""Makes content-1.zdict of content-1.jsonl: the same text, with zstd's tables of how often which byte comes before it.

    pip install backports.zstd
    python3 crates/events/dictionaries/make.py content-1.zdict

What it made for release 0.2 is frozen (crates/events/src/compression.rs); this is here to show how that came about, and
for the next dictionary. The tables are counted over events of our own making: the lines of content-1.jsonl, their ids
and times drawn by chance, their texts cut out of this repository's documents and sources. Nobody's recordings are in it.
"""

import json
import pathlib
import random
import sys

from backports import zstd

HERE = pathlib.Path(__file__).parent
REPOSITORY = HERE.parent.parent.parent
LEVEL = 1
SAMPLES = 6000

chance = random.Random(1)
PROSE = [line for path in sorted(REPOSITORY.glob("docs/**/*.md")) for line in path.read_text().split("\n\n") if line]
CODE = [path.read_text() for path in sorted(REPOSITORY.glob("crates/*/src/*.rs"))]
PATHS = [str(path.relative_to(REPOSITORY)) for path in sorted(REPOSITORY.glob("crates/*/src/**/*.rs"))]
COMMANDS = ["cargo test -p {} --quiet", "git diff {}", "ls -la {}", "grep -rn 'fn {}' crates", "sed -n 1,80p {}", "cat {}"]

UUIDS = ("session_id sessionId uuid prompt_id promptId turn_id root_turn_id thread_id parentUuid message_id hook_id run_id "
         "sourceToolAssistantUUID adapter_session_id request_id log_id").split()
PROSE_KEYS = "message text prompt delta last_assistant_message result thinking last_agent_message reason step description"
CODE_KEYS = "stdout content output aggregated_output old_string new_string oldString newString originalFile error stderr"


def characters(alphabet, count):
    return "".join(chance.choices(alphabet, k=count))


def hexadecimal(count):
    return characters("0123456789abcdef", count)


def uuid():
    return "-".join(hexadecimal(count) for count in (8, 4, 4, 4, 12))


def base62(count):
    return characters("0123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz", count)


def excerpt(texts):
    text = chance.choice(texts)
    length = min(int(chance.lognormvariate(4.2, 1.2)), 4000)
    begin = chance.randrange(max(len(text) - length, 1))
    return text[begin:begin + length]


class Event:
    """One sample: the same key gets the same value wherever it stands in the event."""

    def __init__(self):
        self.drawn = {}

    def draw(self, key, value):
        if key not in self.drawn:
            self.drawn[key] = value()
        return self.drawn[key]

    def text(self, key, value):
        if key in UUIDS:
            return self.draw("session" if key in ("session_id", "sessionId") else key, uuid)
        if key in ("tool_use_id", "toolUseId", "call_id") or value.startswith("toolu_"):
            begin = "call_" if value.startswith("call_") or key == "call_id" else "toolu_01"
            return self.draw("call", lambda: begin + base62(22))
        if value.startswith(("msg_", "req_", "rs_", "fc_")):
            return self.draw(value[:3], lambda: value[:value.index("_") + 1] + "01" + base62(22))
        if key == "id":
            source = value.split(":")[0]
            return f"{source}:{hexadecimal(32) if source == 'hook' else uuid()}" if ":" in value else value
        if value.startswith("2026-"):
            return f"2026-0{chance.randrange(1, 10)}-{chance.randrange(10, 29)}T{chance.randrange(10, 24)}:" \
                   f"{chance.randrange(10, 60)}:{chance.randrange(10, 60)}.{chance.randrange(100, 1000)}Z"
        if key in ("file_path", "filePath", "path"):
            return self.draw("path", lambda: "/home/user/project/" + chance.choice(PATHS))
        if key in ("command", "cmd"):
            return self.draw("command", lambda: chance.choice(COMMANDS).format(chance.choice(PATHS)))
        if key in PROSE_KEYS.split():
            return self.draw(key, lambda: excerpt(PROSE))
        if key in CODE_KEYS.split():
            return self.draw(key, lambda: excerpt(CODE)) if chance.random() < 0.6 else ""
        return value

    def filled(self, key, value):
        if isinstance(value, dict):
            return {key: self.filled(key, item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.filled(key, item) for item in value]
        if isinstance(value, str):
            return self.text(key, value)
        if isinstance(value, bool) or value is None:
            return value
        if isinstance(value, int) and value > 10**12:
            return self.draw("time", lambda: 1_760_000_000_000 + chance.randrange(10**11))
        return chance.randrange(10**len(str(value))) if isinstance(value, int) else value


def main():
    text = (HERE / "content-1.jsonl").read_bytes()
    events = [json.loads(line) for line in text.splitlines()]
    # What stands further down comes more often.
    weights = [1 + 3 * at / len(events) for at in range(len(events))]
    samples = [
        json.dumps(Event().filled("", event), ensure_ascii=False, separators=(",", ":")).encode()
        for event in chance.choices(events, weights, k=SAMPLES)
    ]
    raw = zstd.ZstdDict(text, is_raw=True)
    made = zstd.finalize_dict(raw, samples, len(text) + 4096, LEVEL).dict_content
    assert made.endswith(text), "the text stands at the end as it is"
    pathlib.Path(sys.argv[1]).write_bytes(made)
    print(f"{len(made)} bytes, {len(made) - len(text)} of them tables")


main()
