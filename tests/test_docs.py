"""The documents say what the code does, no less and no more."""

from __future__ import annotations

import dataclasses
import json
import re
import typing
from pathlib import Path

import pytest

from edged import protocol
from edged.errors import EdgedError, ErrorCode
from edged.frontends.http.openai_errors import http_error
from edged.frontends.mqtt.presence import ALARMS
from edged.frontends.mqtt.topics import Topics
from edged.protocol import Frame, Message, Request, Timings, Usage
from edged.settings.mqtt import Command
from edged.watch.memory import actions as memory
from edged.watch.thermal import watch as thermal

ROOT = Path(__file__).resolve().parent.parent
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
MQTT = (ROOT / "docs" / "mqtt.md").read_text()
ADR = ROOT / "docs" / "adr"
DOCUMENTS = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def table(head: str, page: str = PROTOCOL) -> list[list[str]]:
    """Return the rows of the table whose header's first cell is `head`, cell by cell."""
    _, _, after = page.partition(f"\n| {head} |")
    assert after, f"the page has no table of {head}"
    lines = after.split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def code_spans(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_request_field_is_documented_with_its_default() -> None:
    documented = {code_spans(row[0])[0]: row[1].strip("`") for row in table("field")}
    defaults = {
        name: json.dumps(field.get_default(call_default_factory=True))
        for name, field in Request.model_fields.items()
    }
    assert documented == {name: "" if default == "null" else default for name, default in defaults.items()}


def test_every_message_field_is_documented() -> None:
    assert [code_spans(row[0])[0] for row in table("message field")] == list(Message.model_fields)


def test_what_is_refused_by_name_is_documented() -> None:
    [sentence] = re.findall(r"Not served yet, and refused by name: ([^.]*)\.", PROTOCOL)
    for name in code_spans(sentence):
        with pytest.raises(EdgedError, match=f"{name} is not served"):
            Request.parse({"prompt": "Hello", name: "x"})
    assert set(code_spans(sentence)) == set(protocol._NOT_SERVED)


def test_every_frame_is_documented_with_its_fields() -> None:
    documented = {code_spans(row[0])[0]: code_spans(row[1]) for row in table("type")}
    common = {"id", "attempt", "seq", "type"}
    of_code = {}
    for frame in typing.get_args(Frame):
        fields = dataclasses.fields(frame)
        [kind] = [field.default for field in fields if field.name == "type"]
        of_code[kind] = {field.name for field in fields} - common
    assert {kind: set(fields) for kind, fields in documented.items()} == of_code


@pytest.mark.parametrize("part", [Usage, Timings])
def test_the_parts_of_done_are_documented(part: type[Usage | Timings]) -> None:
    [line] = re.findall(
        rf"^- `{part.__name__.lower()}` has (.*?)(?:;|\.$)", PROTOCOL, re.MULTILINE | re.DOTALL
    )
    assert code_spans(line) == [field.name for field in dataclasses.fields(part)]


def test_every_error_code_is_documented_with_its_http_status() -> None:
    documented = {code_spans(row[0])[0]: int(row[1]) for row in table("code")}
    assert documented == {code.value: http_error(EdgedError(code, "")).status for code in ErrorCode}


def test_every_topic_is_documented_with_its_direction() -> None:
    topics = Topics("edged", "d")
    base = "edged/v1/d/"
    documented = {code_spans(row[0])[0]: row[1] for row in table("topic", MQTT)}
    out = [
        topics.status,
        topics.info,
        topics.health,
        topics.last_answer,
        topics.event("<type>"),
        topics.alarm("<type>"),
        topics.reply("<client>", "<id>"),
        topics.result("<name>"),
    ]
    assert {name for name, way in documented.items() if way == "out"} == {
        topic.removeprefix(base) for topic in out
    }
    heard = {topic.removeprefix(base).replace("+", "…") for topic in topics.subscriptions(open_ask=True)}
    of_in = {re.sub("<[a-z]+>", "…", name) for name, way in documented.items() if way == "in"}
    assert of_in | {"status", "ask/…/…"} == heard
    for name in (name for name, way in documented.items() if way == "in"):
        assert topics.read(base + re.sub("[<>]", "", name)) is not None


def test_every_event_is_documented() -> None:
    sources = "".join(path.read_text() for path in ROOT.glob("edged/**/*.py"))
    emitted = set(re.findall(r"""events\.emit\(\s*"([a-z_]+)\"""", sources)) | set(ALARMS)
    emitted |= {*typing.get_args(memory.Happening), *typing.get_args(thermal.Happening)}
    assert {code_spans(row[0])[0] for row in table("type", MQTT)} == emitted


def test_every_command_is_documented() -> None:
    [names] = re.findall(r"lists those that are obeyed: ([a-z_,\s]+)\.", MQTT)
    assert re.split(r",\s+", names) == list(typing.get_args(Command))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_every_decision_stands_in_the_index() -> None:
    indexed = re.findall(
        r"^\| \[(\d{4})\]\((\1-[a-z0-9-]+\.md)\) \| (.+) \|$", (ADR / "README.md").read_text(), re.M
    )
    titles = []
    for path in sorted(ADR.glob("0*.md")):
        title = path.read_text().partition("\n")[0].removeprefix(f"# {path.name[:4]}: ")
        titles.append((path.name[:4], path.name, title))
    assert indexed == titles
    assert [int(number) for number, _, _ in titles] == list(range(1, len(titles) + 1))


@pytest.mark.parametrize("path", sorted(ADR.glob("0*.md")), ids=lambda path: path.name[:4])
def test_a_decision_has_date_status_and_its_three_parts(path: Path) -> None:
    text = path.read_text()
    assert re.search(r"^- Date: \d{4}-\d\d-\d\d$", text, re.M)
    assert re.search(r"^- Status: (accepted|superseded|given up)", text, re.M)
    assert re.findall(r"^## (.*)$", text, re.M) == ["Background", "Decision", "Impact"]


def test_every_tool_is_named() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    named = {name for row in table("tool", page) for name in code_spans(row[0])}
    programs = [path for path in ROOT.glob("tools/*.py") if '__name__ == "__main__"' in path.read_text()]
    packages = [path.parent for path in ROOT.glob("tools/*/__main__.py")]
    assert named == {path.stem for path in [*programs, *packages]}


def test_the_requester_in_python_is_as_short_as_is_said() -> None:
    [said] = re.findall(r"a requester in Python has (\d+) lines of code", (ROOT / "README.md").read_text())
    text = (ROOT / "tools" / "examples" / "ask_mqtt.py").read_text()
    [docstring] = re.findall(r'"""(.*?)"""\n', text, re.DOTALL)
    lines = [line.strip() for line in text.replace(f'"""{docstring}"""', "").splitlines()]
    assert int(said) == sum(bool(line) and not line.startswith("#") for line in lines)


def test_the_house_on_one_page_names_what_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = {name for name in code_spans(text) if name.startswith("edged/")}
    assert {name for name in named if not (ROOT / name).exists()} == set()
    packages = {f"edged/{path.parent.name}/" for path in ROOT.glob("edged/*/__init__.py")}
    assert {package for package in packages if package not in text} == set()
