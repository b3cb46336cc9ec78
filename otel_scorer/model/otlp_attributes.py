"""Attributes of OTLP messages, read when somebody looks at them, and written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from otel_scorer.model.encoding import nearest_double
from otel_scorer.model.facts import AttributeValue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

__all__ = ["Attributes", "EncodedAttributes", "decode_encoded", "decode_value", "encode_attributes", "utf8_text"]

V = TypeVar("V")

_STRING: Final = 0x0A  # AnyValue.string_value, length-delimited
_MORE: Final = 0x80  # set in a byte of a varint after which another one comes
_BITS: Final = 0x7F  # what else is in it
_HEAD: Final = 3  # the tag, and a length of two bytes


def decode_encoded(data: bytes) -> AttributeValue:
    """Return an encoded AnyValue, of a request that was validated, as a plain Python value."""
    size = len(data)
    # Nearly all values that are looked at are a text and nothing else; its length is a varint of a byte or two.
    if size > _HEAD and data[0] == _STRING:
        length = data[1]
        if length < _MORE:
            if length == size - 2:
                return data[2:].decode()
        elif data[2] < _MORE and (length & _BITS) | (data[2] << 7) == size - _HEAD:
            return data[_HEAD:].decode()
    value = AnyValue.FromString(data)
    return value.string_value or decode_value(value)


def decode_value(value: AnyValue) -> AttributeValue:
    """Return an OTLP AnyValue as a plain Python value. Empty values are None."""
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value
    if kind is None:
        return None
    if kind == "array_value":
        return [decode_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: decode_value(pair.value) for pair in value.kvlist_value.values}
    return cast("AttributeValue", getattr(value, kind))


class _ByKey(Mapping[str, AttributeValue], Generic[V]):
    """Attributes by key and in order of the keys; of a repeated key the last one counts."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, V]) -> None:
        self._values = values

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._values))

    def __len__(self) -> int:
        return len(self._values)

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        # A copy is a plain dict, and may be changed.
        return dict, (dict(self),)

    def __repr__(self) -> str:
        return repr(dict(self))


class Attributes(_ByKey[AnyValue]):
    """Attributes of an OTLP message; a value is converted when it is read."""

    __slots__ = ()

    @classmethod
    def of(cls, pairs: Iterable[KeyValue]) -> Attributes:
        """Return the attributes of a message that holds them as a list."""
        return cls({pair.key: pair.value for pair in pairs})

    def __getitem__(self, key: str) -> AttributeValue:
        # No plain look-up: a protobuf map adds the keys that it is asked for.
        value = self._values.get(key)
        if value is None:
            raise KeyError(key)
        # Most values are text: ask for that first.
        return value.string_value or decode_value(value)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, or `default`."""
        value = self._values.get(key)
        return default if value is None else value.string_value or decode_value(value)


class EncodedAttributes(_ByKey[bytes]):
    """Attributes whose values are encoded: a value is decoded when it is read."""

    __slots__ = ()

    def __getitem__(self, key: str) -> AttributeValue:
        value = self._values.get(key)
        if value is None:
            raise KeyError(key)
        return decode_encoded(value)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of `key`, or `default`."""
        value = self._values.get(key)
        return default if value is None else decode_encoded(value)


def encode_attributes(pairs: Any, values: Mapping[str, Any]) -> None:
    """
    Add plain Python values to a repeated field of KeyValue messages.

    What OTLP cannot carry becomes what is nearest: lone surrogates question marks, integers outside 64 bits doubles.
    """
    for key, value in values.items():
        _encode_value(pairs.add(key=utf8_text(key)).value, value)


def utf8_text(text: str) -> str:
    """Return `text` as UTF-8 can carry it, with question marks for lone surrogates."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _encode_value(target: AnyValue, value: Any) -> None:
    if isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, str):
        target.string_value = utf8_text(value)
    elif isinstance(value, int):
        if -(1 << 63) <= value < 1 << 63:
            target.int_value = value
        else:
            target.double_value = nearest_double(value)
    elif isinstance(value, float):
        target.double_value = value
    elif isinstance(value, bytes):
        target.bytes_value = value
    elif isinstance(value, list):
        target.array_value.SetInParent()
        for item in cast("list[Any]", value):
            _encode_value(target.array_value.values.add(), item)
    elif isinstance(value, dict):
        target.kvlist_value.SetInParent()
        encode_attributes(target.kvlist_value.values, cast("dict[str, Any]", value))
