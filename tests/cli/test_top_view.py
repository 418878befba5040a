"""The picture of `edgectl top`, line by line."""

from __future__ import annotations

import pytest

from edged.cli.screen import Line
from edged.cli.top_view import View
from tests.cli.top_looks import heat, look, memory, request, status

SIZE = (80, 24)
MQTT = request(
    "8d1f", client="living-room", way="mqtt", state="queued", tokens=0, prompt_tokens=None, age_seconds=61
)


def texts(view: View, size: tuple[int, int] = SIZE) -> list[str]:
    return [text.rstrip() for text, _ in view.lines(size)]


def line(view: View, beginning: str) -> Line:
    """Return the one line that begins so."""
    [found] = [(text, style) for text, style in view.lines(SIZE) if text.startswith(beginning)]
    return found


@pytest.fixture
def view() -> View:
    """A view that has looked twice, two seconds apart."""
    view = View(blocks=True)
    requests = (request("c4dcb5fb6b11490aa3c3e3aacccb4c30"), MQTT)
    view.take(look(*requests, tokens=1000), 10.0)
    view.take(look(*requests, tokens=1123), 12.0)
    return view


def test_the_whole_picture_on_80_by_24(view: View) -> None:
    assert texts(view) == [
        "kitchen-3fa2b1  edged 0.1.0, ready, up 2 d 3 h  smollm2-135m-instruct-q4_1",
        "heat       62.3 °C                         ▆▆ target 75 °C",
        "memory     2.10 GB                         ▄▄ of 3.97 GB left, evict at 238.0 MB",
        "tokens/s      61.5                          █ fastest 61.5",
        "queue            3                         ▁▁ of 64 wait, 4 of 4 run",
        "watch    memory ok, heat cool, engine ready, parts ok, no alarms",
        " CLIENT      WAY    STATE    TOKENS  AGE PROMPT ID",
        ">uid-1000    socket running      57   4s    182 c4dcb5fb6b11490aa3c3e3aacccb4c30",
        " living-room mqtt   queued        0   1m      - 8d1f",
        *[""] * 14,
        "[q]uit  [k] cancels  arrows select  2 requests",
    ]


def test_what_cannot_show_blocks_gets_plain_characters() -> None:
    view = View(blocks=False)
    view.take(look(), 1.0)
    assert texts(view)[1] == "heat       62.3 °C                          * target 75 °C"
    assert "*" not in "".join(texts(view)[5:])


@pytest.mark.parametrize("columns", [20, 40, 60, 80, 100, 250])
@pytest.mark.parametrize("height", [2, 5, 8, 12, 24, 60])
def test_every_size_is_filled_and_never_more(view: View, columns: int, height: int) -> None:
    view.take(
        look(
            *(request(f"r{n}") for n in range(30)), watch={"memory": memory(level="shed", reason="x " * 60)}
        ),
        14.0,
    )
    lines = view.lines((columns, height))
    assert len(lines) == height
    assert lines[-1][0].startswith("[q]uit")
    if height >= 24:
        assert sum(" running " in text for text, _ in lines) >= 3 or columns < 40


def test_narrow_screens_keep_value_limit_and_who_asks(view: View) -> None:
    shown = [text[:60] for text, _ in view.lines((60, 24))]
    assert shown[1].rstrip().endswith("target 75 °C")
    assert shown[2].rstrip().endswith("evict at 238.0 MB")
    narrow = [text[:40] for text, _ in view.lines((40, 24))]
    assert narrow[1].startswith("heat       62.3 °C")
    assert any(text.startswith(">uid-1000    socket running      57") for text in narrow)


def test_speed_is_what_was_produced_since_the_last_look(view: View) -> None:
    view.take(look(tokens=1123), 14.0)
    assert line(view, "tokens/s")[0].split()[1] == "0.0"
    view.take(look(tokens=5), 16.0)
    assert line(view, "tokens/s")[0].split()[1] == "-", "a daemon that was started anew counts anew"
    view.take(look(tokens=25), 18.0)
    assert line(view, "tokens/s")[0].split()[1] == "10.0"
    assert "fastest 61.5" in line(view, "tokens/s")[0]


def test_the_memory_that_is_nearer_to_its_end_is_shown(view: View) -> None:
    limited = memory(
        limit_bytes=1_000_000_000,
        limit_available_bytes=90_000_000,
        evicts_below_bytes={"available": 238_000_000, "group": 60_000_000},
    )
    view.take(look(watch={"memory": limited, "thermal": heat()}), 14.0)
    text = line(view, "memory")[0]
    assert text.split()[1:3] == ["90.0", "MB"]
    assert text.rstrip().endswith("of the limit of 1.00 GB left, evict at 60.0 MB")


def test_what_nothing_measures_is_a_dash() -> None:
    view = View(blocks=True)
    view.take(look(watch={"thermal": heat(celsius=None)}, model=None, liveness=None), 1.0)
    assert line(view, "heat")[0].split() == ["heat", "-", "no", "thermometer"]
    assert line(view, "memory")[0].split() == ["memory", "-", "not", "known"]
    assert "no model" in texts(view)[0]
    assert line(view, "watch")[0].startswith("watch    memory unknown, heat cool, engine ready, no alarms")


def test_levels_stand_with_their_reasons(view: View) -> None:
    short = memory(
        level="evict", reason="12 MB of 3,974 MB of memory are available, and others take more each second"
    )
    warm = heat(
        state="governing",
        celsius=75.4,
        reason="75.4 °C, the target is 75 °C: 2 of 4 threads, 40% of the time",
    )
    still = {"journal": {"state": "stalled", "still_seconds": 131.2, "bound_seconds": 120.0}}
    view.take(
        look(
            watch={"memory": short, "thermal": warm},
            engine={"state": "low_memory"},
            reason="memory is short",
            liveness={"parts": still},
            alarms=("memory", "heat"),
        ),
        14.0,
    )
    lines = view.lines(SIZE)
    begin = next(n for n, (text, _) in enumerate(lines) if text.startswith("watch"))
    assert lines[begin : begin + 8] == [
        ("watch    memory evict, heat governing, engine low memory, journal stalled,", "31"),
        ("         alarms: memory, heat", "31"),
        ("  memory: 12 MB of 3,974 MB of memory are available, and others take more each", "31"),
        ("          second", "31"),
        ("  heat: 75.4 °C, the target is 75 °C: 2 of 4 threads, 40% of the time", "33"),
        ("  engine: memory is short", "31"),
        ("  journal: still for 131 s, 120 s are allowed", "31"),
        (" CLIENT      WAY    STATE    TOKENS  AGE PROMPT ID".ljust(80), "7"),
    ]
    assert [line(view, name)[1] for name in ("heat", "memory", "queue")] == ["33", "31", ""]


def test_a_full_queue_is_red(view: View) -> None:
    view.take(look(requests={"queued": 64, "running": 4}), 14.0)
    assert line(view, "queue")[1] == "31"


def test_a_model_that_is_loaded_is_told(view: View) -> None:
    view.take(look(engine={"state": "starting", "load_progress": 0.25}), 14.0)
    assert "engine starting (25% loaded)" in line(view, "watch")[0]


# --- requests ---


def test_the_selection_follows_its_request_and_not_its_place(view: View) -> None:
    view.press("down")
    view.take(look(request("new"), request("c4dcb5fb6b11490aa3c3e3aacccb4c30"), MQTT), 14.0)
    assert view.selected == MQTT
    assert line(view, ">living-room")[1] == "7"


def test_nothing_takes_the_place_of_a_request_that_has_ended(view: View) -> None:
    view.take(look(MQTT), 14.0)
    assert view.selected is None, "a key pressed just then would cancel another one"
    assert not [text for text in texts(view) if text.startswith(">")]
    view.press("down")
    assert view.selected == MQTT


def test_the_first_is_selected_where_there_was_none(view: View) -> None:
    view.take(look(), 14.0)
    assert view.selected is None
    view.press("down")
    view.take(look(MQTT), 16.0)
    assert view.selected == MQTT


def test_the_same_id_of_two_clients_is_two_requests() -> None:
    view = View(blocks=True)
    mine, other = request("1"), request("1", client="uid-7")
    view.take(look(mine, other), 1.0)
    view.press("j")
    assert view.selected == other


def test_what_is_selected_is_kept_in_sight() -> None:
    view = View(blocks=True)
    requests = [request(f"r{number:02}") for number in range(40)]
    view.take(look(*requests), 1.0)
    for _ in range(25):
        view.press("down")
    assert view.selected == requests[25]
    shown = texts(view)
    assert shown[-2].startswith(">")
    assert shown[-2].endswith("r25")
    view.press("home")
    assert line(view, ">uid-1000")[0].rstrip().endswith("r00")
    view.press("G")
    assert texts(view)[-2].endswith("r39")
    view.press("up")
    assert view.selected == requests[38]
    view.take(look(*requests[:3]), 2.0)
    assert [text[-3:] for text in texts(view) if "running" in text] == ["r00", "r01", "r02"]


def test_the_foot_says_whose_requests_they_are_and_whether_they_are_all(view: View) -> None:
    view.take(look(MQTT, everybodys=False), 14.0)
    assert texts(view)[-1].endswith("1 request of yours; sudo shows all clients'")
    view.take(look(MQTT, total=64), 16.0)
    assert texts(view)[-1].endswith("64 requests (the oldest 1 shown)")


def test_a_notice_stands_in_the_foot_until_the_next_key(view: View) -> None:
    view.notice = "cancelled 8d1f"
    view.take(look(MQTT), 14.0)
    assert texts(view)[-1] == "cancelled 8d1f"
    view.press("down")
    assert texts(view)[-1].startswith("[q]uit")


# --- a daemon that is gone ---


def test_a_daemon_that_is_gone_is_told_and_leaves_a_gap(view: View) -> None:
    view.lose("the daemon is not running: nobody listens on /run/edged/edged.sock")
    assert view.lines(SIZE)[0] == (
        "NO ANSWER: the daemon is not running: nobody listens on /run/edged/edged.sock; trying again, "
        "what follows is old",
        "7",
    )
    assert any(text.startswith(">uid-1000") for text in texts(view)), "what was known is still shown"
    view.take(look(tokens=2000), 20.0)
    assert texts(view)[0].startswith("kitchen-3fa2b1")
    assert "▆▆ ▆ target" in line(view, "heat")[0]
    assert line(view, "tokens/s")[0].split()[1] == "-", "nobody knows how long it took"


def test_before_the_first_look_there_is_nothing() -> None:
    assert View(blocks=True).lines(SIZE) == []


def test_a_status_without_the_newer_parts_is_shown_as_far_as_it_goes() -> None:
    view = View(blocks=True)
    old = {name: part for name, part in status().items() if name in ("version", "phase", "device_id")}
    view.take(look()._replace(status=old, telemetry={}), 1.0)
    assert texts(view)[0] == "kitchen-3fa2b1  edged 0.1.0, ready  no model"
