"""The flags of ``kubectl chandlery``: those that kubectl has, on every verb."""

from __future__ import annotations

import enum
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import typer

from chandlery.cli.endings import ends_well
from chandlery.cli.plugin.kubectl import Kubectl


class Form(enum.StrEnum):
    """How a list is printed."""

    table = "table"
    wide = "wide"
    json = "json"
    name = "name"


Output = Annotated[Form, typer.Option("-o", "--output", help="How to print it.")]
Json = Annotated[bool, typer.Option("--json", help="JSON for programs, as -o json.")]

_NAMESPACE: Final = Annotated[
    str, typer.Option("-n", "--namespace", help="Namespace; else the context's.", show_default=False)
]
_EVERYWHERE: Final = Annotated[bool, typer.Option("-A", "--all-namespaces", help="In all namespaces.")]
#: Flags that go to kubectl as they are: name → what it is.
_PASSED: Final = {
    "kubeconfig": "Kubeconfig file to use.",
    "context": "Context of the kubeconfig to use.",
    "cluster": "Cluster of the kubeconfig to use.",
    "user": "User of the kubeconfig to use.",
    "as": "User to act as (impersonation).",
    "as-group": "Group to act as.",
}


def on_cluster(verb: Callable[..., int | None], *, lists: bool = False) -> Callable[..., None]:
    """Make a verb's command: its own parameters, kubectl's flags beside them, and an end as every verb has.

    Args:
        verb: its parameter ``kubectl`` gets a :class:`Kubectl` with what was given.
        lists: whether ``--all-namespaces`` makes sense.
    """
    hints = typing.get_type_hints(verb, include_extras=True)
    own = [
        parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in inspect.signature(verb).parameters.values()
        if parameter.name != "kubectl"
    ]
    shared = [_parameter("namespace", _NAMESPACE, "")]
    if lists:
        shared.append(_parameter("all_namespaces", _EVERYWHERE, False))
    for flag, meaning in _PASSED.items():
        option = typer.Option(
            f"--{flag}", help=meaning, show_default=False, rich_help_panel="Which cluster, and as whom"
        )
        shared.append(_parameter(_name(flag), Annotated[str, option], ""))

    def call(**given: Any) -> int | None:
        flags = flags_given(given)
        for flag in _PASSED:
            del given[_name(flag)]
        kubectl = Kubectl(given.pop("namespace"), given.pop("all_namespaces", False), flags)
        return verb(kubectl=kubectl, **given)

    call.__name__, call.__doc__ = verb.__name__, verb.__doc__
    call.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared)}
    return ends_well(call)


def _name(flag: str) -> str:
    """Python's name of a flag that is passed on: ``as`` is a word of the language."""
    return f"{flag.replace('-', '_')}_flag"


def flags_given(parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """The flags for kubectl among a verb's parameters."""
    return tuple(f"--{flag}={value}" for flag in _PASSED if (value := parameters.get(_name(flag))))


def _parameter(name: str, annotation: Any, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
