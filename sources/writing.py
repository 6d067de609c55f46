"""Settings as a TOML file, for ``coldaisle doctor --write``."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from coldaisle.sources.config import Settings
from coldaisle.sources.errors import ConfigError
from coldaisle.sources.nodesets import fold

_FOLDED = ("hosts", "targets", "map", "aliases")


def save(settings: Settings, path: Path, *, force: bool = False) -> Path | None:
    """Write the settings there, whole or not at all; ConfigError if a file is there already.

    With ``force`` that file is kept beside the new one; its new path is returned.
    """
    if path.exists() and not force:
        raise ConfigError(
            "there is a configuration already", "--force replaces it and keeps a copy", file=path
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        backup = _backup(path) if path.exists() else None
        _write(path, render(settings))
    except OSError as error:
        raise ConfigError(
            f"cannot write: {error.strerror}", "choose another place with --config", file=path
        ) from None
    return backup


def render(settings: Settings) -> str:
    """The text of a configuration file that says the same; defaults are left out."""
    parts = ["# coldaisle: see the README for every setting"]
    if settings.name:
        parts.append(f"name = {_value(settings.name)}")
    for source in settings.sources:
        written = msgspec.to_builtins(source)
        parts.append(
            "\n".join(["", "[[source]]", f"kind = {_value(written.pop('kind'))}", *_lines(source, written)])
        )
    parts += (
        "\n".join(["", "[[metric]]", *_lines(metric, msgspec.to_builtins(metric))])
        for metric in settings.metrics
    )
    for name in ("racks", "nodes", "screen", "history"):
        table = getattr(settings, name)
        if lines := list(_lines(table, msgspec.to_builtins(table))):
            parts.append("\n".join(["", f"[{name}]", *lines]))
    return "\n".join(parts) + "\n"


def _lines(struct: msgspec.Struct, written: Mapping[str, Any]) -> Iterable[str]:
    defaults = dict(zip(struct.__struct_fields__[::-1], struct.__struct_defaults__[::-1], strict=False))
    fields = dict(zip(struct.__struct_encode_fields__, struct.__struct_fields__, strict=True))
    for key, value in written.items():
        default = defaults.get(fields[key], msgspec.NODEFAULT)
        if getattr(struct, fields[key]) != default and value not in (None, (), {}):
            yield f"{key} = {_value(_folded(value) if key in _FOLDED else value)}"


def _folded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: fold(names) for key, names in value.items()}
    odd = [name for name in value if "[" in name]  # [fe80::1]:9100 would read as a node set
    folded = fold(name for name in value if "[" not in name)
    return [*filter(None, [folded]), *odd] if odd else folded


def _value(value: Any) -> str:
    if isinstance(value, str):
        # JSON's strings are TOML's basic strings, but for DEL
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_value(key)} = {_value(item)}" for key, item in value.items()) + " }"
    return "[" + ", ".join(map(_value, value)) + "]"


def _backup(path: Path) -> Path:
    number = 1
    while (backup := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    shutil.copy2(path, backup)
    return backup


def _write(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
