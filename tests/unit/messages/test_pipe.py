import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harness.messages.pipe import Message, MessageError, receive, send

_text = st.text(max_size=8)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _text,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3)
    ),
    max_leaves=6,
)
_arrays = hnp.arrays(
    st.sampled_from(["f4", "f8", ">f8", "i8", "u1", "?"]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)


def _sent(*messages: Message) -> bytes:
    stream = io.BytesIO()
    for message in messages:
        send(stream, message)
    return stream.getvalue()


@given(
    st.lists(
        st.tuples(
            st.dictionaries(_text, _json, max_size=3),
            st.dictionaries(_text, _arrays, max_size=2),
        ),
        max_size=3,
    )
)
def test_messages_arrive_unchanged_and_in_order(
    sent: list[tuple[dict[str, object], dict[str, np.ndarray]]],
) -> None:
    stream = io.BytesIO(_sent(*(Message(v, a) for v, a in sent)))
    for values, arrays in sent:
        message = receive(stream)
        assert message is not None
        assert message.values == values
        assert list(message.arrays) == list(arrays)
        for name, array in arrays.items():
            assert message.arrays[name].dtype == array.dtype
            assert message.arrays[name].shape == array.shape
            np.testing.assert_array_equal(message.arrays[name], array)
    assert receive(stream) is None


def test_a_truncated_message_is_not_returned() -> None:
    whole = _sent(Message({"kind": "result"}, {"w": np.arange(6.0).reshape(2, 3)}))
    for length in range(len(whole)):
        assert receive(io.BytesIO(whole[:length])) is None
    assert receive(io.BytesIO(whole)) is not None


def test_a_received_array_can_be_written_to() -> None:
    message = receive(io.BytesIO(_sent(Message({}, {"w": np.zeros(3)}))))
    assert message is not None
    message.arrays["w"] += 1


def test_a_view_that_is_not_contiguous_keeps_the_order_of_its_values() -> None:
    array = np.arange(12.0).reshape(3, 4).T[::2]
    message = receive(io.BytesIO(_sent(Message({}, {"w": array}))))
    assert message is not None
    np.testing.assert_array_equal(message.arrays["w"], array)


def test_numpy_numbers_arrive_as_numbers() -> None:
    values = {"a": np.int64(3), "b": np.float32(0.5), "c": np.float64(0.25)}
    message = receive(io.BytesIO(_sent(Message(values))))
    assert message is not None
    assert message.values == {"a": 3, "b": 0.5, "c": 0.25}


@pytest.mark.parametrize(
    "sent",
    [
        b"loud\n",
        b"[]\n",
        b"3\n",
        b'{"values": 3, "arrays": []}\n',
        b'{"values": {}, "arrays": [["w", "O", [1]]]}\n' + bytes(8),
        b'{"values": {}, "arrays": [["w", "<f4", [-1]]]}\n',
        b'{"values": {}, "arrays": [["w", "<f4", [1000000000, 1000000000]]]}\n',
        b'{"values": {}, "arrays": [["w", "<f4", [549755813888, 549755813888, 0]]]}\n',
        b'{"values": {}, "arrays": [["w", "<f4", 3]]}\n',
        b'{"values": {}, "arrays": [["w", "<M8[s]", [3]]]}\n',
        b'{"values": {}}\n',
        b"[" * 100_000 + b"\n",
        b"\xff\xfe\n",
    ],
)
def test_what_is_no_message_is_refused(sent: bytes) -> None:
    with pytest.raises(MessageError):
        receive(io.BytesIO(sent))


def test_an_endless_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.messages.pipe.MOST_LINE_BYTES", 1000)
    with pytest.raises(MessageError, match="a line of more than 1000 bytes"):
        receive(io.BytesIO(b"x" * 5000))


def test_an_array_for_which_there_is_no_memory_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent = _sent(Message({}, {"w": np.zeros(3)}))

    def empty(*_: object) -> None:
        raise MemoryError("none is left")

    monkeypatch.setattr(np, "empty", empty)
    with pytest.raises(MessageError, match=r"cannot be held \(none is left\)"):
        receive(io.BytesIO(sent))


def test_objects_are_not_sent() -> None:
    with pytest.raises(MessageError, match="'w' is an array of dtype object"):
        send(io.BytesIO(), Message({}, {"w": np.array([None])}))
    with pytest.raises(MessageError, match="a set cannot be sent"):
        send(io.BytesIO(), Message({"w": {1}}))
