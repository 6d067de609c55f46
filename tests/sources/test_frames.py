"""The lines of a probe: ours are told from a login shell's, cut ones are an error, numbers keep their absence."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldaisle.sources import frames


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"Welcome to n01!\n", b'{"k":"sample"}\n', b"\x1b[31mred\x1b[0m\n"]
)
def test_other_peoples_lines_are_not_ours(line: bytes) -> None:
    assert frames.decode(line) is None


@given(st.binary().filter(lambda line: not line.startswith(frames.RECORD)))
def test_whatever_a_login_shell_prints_is_not_ours(line: bytes) -> None:
    assert frames.decode(line) is None


def test_a_sample_keeps_what_is_missing() -> None:
    line = b'\x1e{"k":"sample","t":1.5,"schema":1,"dt":null,"gpu":[[70,null]],"gpu_why":[[0,6]]}\n'
    frame = frames.decode(line)
    assert isinstance(frame, frames.Sample)
    assert (frame.t, frame.dt, frame.gpu, frame.gpu_why, frame.node) == (
        1.5,
        None,
        [[70.0, None]],
        [[0, 6]],
        [],
    )


@pytest.mark.parametrize(
    "frame",
    [
        frames.Hello(t=1.0, probe=1, python="3.6.15", hostname="n01", problem="no driver"),
        frames.Schema(
            1, [frames.Gpu(index=0, mig="gi1")], ["gpu.power"], [], ["mlx5_0/1"], ["port.rx"], [], []
        ),
        frames.Happening(t=2.0, kind="xid", detail="Xid 79", gpu=3),
        frames.Processes(3.0, [frames.Proc(gpu=0, pid=7, user="ada", command="python train.py", sm=0.5)]),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_every_frame_comes_back(frame: frames.Frame) -> None:
    assert frames.decode(frames.RECORD + msgspec.json.encode(frame) + b"\n") == frame


def test_what_a_later_probe_adds_is_left_out() -> None:
    frame = frames.decode(b'\x1e{"k":"event","t":1,"kind":"xid","detail":"Xid 79","colour":"red"}')
    assert frame == frames.Happening(t=1.0, kind="xid", detail="Xid 79")


LINE = frames.RECORD + msgspec.json.encode(frames.Sample(t=1.0, schema=1, dt=2.0, gpu=[[1.0, None]]))


@given(st.integers(1, len(LINE) - 1))
def test_a_cut_line_is_an_error(length: int) -> None:
    with pytest.raises(msgspec.DecodeError):
        frames.decode(LINE[:length])


@pytest.mark.parametrize("body", [b"\xff\xfe", b"[]", b"null", b'{"k":"other"}', b'{"k":"sample","t":NaN}'])
def test_what_is_not_the_protocol_is_an_error(body: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        frames.decode(frames.RECORD + body)
