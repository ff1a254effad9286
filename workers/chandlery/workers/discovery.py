"""Finding strategies: in the image (entry points), in a folder of Python files, or in an assignment's text.

The shipped strategies and those of installed packages come first, then the folder. Only the file that
holds the wanted name is imported; the others are read as text.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import linecache
import re
import sys
import traceback
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Final, Literal, NamedTuple

import msgspec

from chandlery.core.errors import StrategyError
from chandlery.core.wording import did_you_mean
from chandlery.workers.strategy import Strategy, kebab, strategies_in

GROUP: Final = "chandlery.strategies"
_STRATEGIES: Final = "chandlery.workers.strategies."
#: The shipped strategies, for trees whose distribution isn't installed. The same as in pyproject.toml.
SHIPPED: Final[Mapping[str, str]] = {
    "sma-cross": _STRATEGIES + "sma_cross:SmaCross",
    "rsi-reversion": _STRATEGIES + "rsi_reversion:RsiReversion",
    "bollinger-breakout": _STRATEGIES + "bollinger_breakout:BollingerBreakout",
    "donchian-breakout": _STRATEGIES + "donchian_breakout:DonchianBreakout",
    "macd": _STRATEGIES + "macd:Macd",
}
#: Longest accepted strategy source, bytes (a ConfigMap's worth).
MAX_SOURCE_BYTES: Final = 64 * 1024

_NAME_IN_TEXT: Final = re.compile(r"""^\s+name(?:\s*:[^=]+)?\s*=\s*["']([^"']+)["']""", re.MULTILINE)
_STRATEGY_IN_TEXT: Final = re.compile(
    r"^class\s+([^\W_]\w*)\s*\([^)]*Strategy[^)]*\)(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL
)
_CLASS_IN_TEXT: Final = re.compile(r"^class\s+(\w+)\s*\(", re.MULTILINE)
_encode: Final = msgspec.json.Encoder(order="deterministic").encode

Origin = Literal["entry-point", "folder", "source"]


class Found(NamedTuple):
    """A strategy class, where it came from and the text of its module."""

    strategy: type[Strategy]
    origin: Origin
    text: str

    def code(self, strategy: Strategy) -> str:
        """Digest of code and parameters of a configured instance, 16 hex digits."""
        digest = hashlib.sha256(self.text.encode())
        digest.update(b"\0" + _encode(dict(strategy.parameters)))
        return digest.hexdigest()[:16]


@cache
def entry_points() -> Mapping[str, str]:
    """``module:Class`` of every strategy in the image by name, the shipped ones included."""
    # Imported late: it is heavy, and the fork server that preloads it shares it with all traders.
    from importlib import metadata

    installed = {point.name: point.value for point in metadata.entry_points(group=GROUP)}
    return {**SHIPPED, **installed}


def error_line(error: BaseException) -> str:
    """An exception as one line, with the strategy's own line number where the traceback has one."""
    text = " ".join("".join(traceback.format_exception_only(error)).split())
    if isinstance(error, SyntaxError):
        return f"{error.msg} (line {error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(frame.filename)]
    return f"{text} (line {frames[-1].lineno})" if frames else text


def _is_ours(filename: str) -> bool:
    return filename.startswith("<frozen") or f"{Path('chandlery', 'workers')}/" in filename


@cache
def _from_entry_point(name: str, value: str) -> Found:
    module_name, _, attribute = value.partition(":")
    try:
        module = importlib.import_module(module_name)
        strategy = getattr(module, attribute)
        text = inspect.getsource(module)
    except (Exception, SystemExit) as error:
        raise StrategyError(f"{name}: can't load {value}: {error_line(error)}", reason="BadSource") from error
    if not (isinstance(strategy, type) and issubclass(strategy, Strategy)):
        raise StrategyError(f"{name}: {value} is no Strategy", reason="BadSource")
    return Found(strategy, "entry-point", text)


def import_file(path: Path) -> tuple[ModuleType, str]:
    """Import one strategy file of a folder; siblings of it can be imported by it.

    Raises:
        StrategyError: ``BadSource``, one line with file, line and error.
    """
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.append(folder)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StrategyError(f"{path.name}: can't be read: {error}", reason="BadSource") from error
    return _execute(f"chandlery_folder_{path.stem}", str(path), text), text


def import_text(text: str, origin: str) -> ModuleType:
    """Import strategy source that came with an assignment.

    Args:
        origin: what tracebacks call it.

    Raises:
        StrategyError: ``BadSource``.
    """
    if len(text.encode()) > MAX_SOURCE_BYTES:
        raise StrategyError(f"{origin}: the source is longer than {MAX_SOURCE_BYTES} bytes", reason="BadSource")
    return _execute("chandlery_source", f"<{origin}>", text)


def _execute(name: str, filename: str, text: str) -> ModuleType:
    module = ModuleType(name)
    module.__file__ = filename
    sys.modules[name] = module
    # For the traceback's source lines, which no file holds.
    linecache.cache[filename] = (len(text), None, text.splitlines(keepends=True), filename)
    try:
        exec(compile(text, filename, "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise StrategyError(f"{Path(filename).name}: {error_line(error)}", reason="BadSource") from error
    return module


def _pick(name: str, module: ModuleType, where: str) -> type[Strategy]:
    found = strategies_in(module)
    for strategy in found:
        if name in (strategy.name, strategy.__name__):
            return strategy
    listed = ", ".join(strategy.name for strategy in found) or "no strategy at all"
    near = did_you_mean(name, [strategy.name for strategy in found])
    raise StrategyError(f"{name!r} is not in {where}; it has: {listed}{near}", reason="UnknownStrategy")


def folder_files(strategies_dir: str) -> list[Path]:
    """Python files of a strategies folder, sorted; names that begin with an underscore or a dot are left alone."""
    if not strategies_dir:
        return []
    return sorted(path for path in Path(strategies_dir).glob("*.py") if not path.name.startswith(("_", ".")))


def names_in_text(text: str) -> list[str]:
    """Names that a strategy file may define, by its text alone: those written, and those of its classes."""
    return [*_NAME_IN_TEXT.findall(text), *map(kebab, _CLASS_IN_TEXT.findall(text))]


def strategies_in_text(text: str) -> list[str]:
    """Names of the strategies that a file seems to define, by its text alone; for one that can't be imported."""
    classes = _STRATEGY_IN_TEXT.findall(text)
    return [next(iter(_NAME_IN_TEXT.findall(body)), kebab(class_name)) for class_name, body in classes]


def text_of(path: Path) -> str:
    """Text of a strategy file; empty where it can't be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""  # the catalogue reports it; here it merely isn't the wanted one


def find_strategy(name: str, *, strategies_dir: str = "", source: str | None = None) -> Found:
    """Find and import a strategy.

    Args:
        name: name in the catalogue; with ``source`` the class's name will do as well.
        strategies_dir: folder of Python files, or empty.
        source: Python text that holds it; then nothing else is searched.

    Raises:
        StrategyError: ``UnknownStrategy`` or ``BadSource``; one line.
    """
    if source is not None:
        module = import_text(source, f"source of {name}")
        return Found(_pick(name, module, "the given source"), "source", source)
    if name in SHIPPED:
        return _from_entry_point(name, SHIPPED[name])
    points = entry_points()
    if name in points:
        return _from_entry_point(name, points[name])
    known = set(points)
    failed: StrategyError | None = None
    for path in folder_files(strategies_dir):
        names = names_in_text(text_of(path))
        if name in names:
            try:
                module, text = import_file(path)
                return Found(_pick(name, module, path.name), "folder", text)
            except StrategyError as error:  # as for the catalogue, another file that holds it will do
                failed = failed or error
        known.update(names)
    if failed is not None:
        raise failed
    raise StrategyError(
        f"unknown strategy {name!r}; there are: {', '.join(sorted(known))}{did_you_mean(name, known)}",
        reason="UnknownStrategy",
    )
