"""A policy with all that it extends: layers, the nearest first, and what comes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from proc_sandbox import presets
from proc_sandbox.config import DEFAULTS, Config
from proc_sandbox.config import normalised as normalised_changes
from proc_sandbox.errors import ConfigError
from proc_sandbox.policies.files import File, Table, choose, read, suggestion, user_file, user_policies
from proc_sandbox.policies.keys import FIELDS, LISTS, PATH_LISTS, normalised

if TYPE_CHECKING:
    from proc_sandbox.config import Options

__all__ = [
    "Merged", "Value", "entry_points", "is_preset", "lacking", "layers", "merge", "preset_names", "suggestion",
]  # fmt: skip

ENTRY_POINTS = "proc_sandbox.presets"
"""Group of entry points: a name for each preset that another distribution brings. Its object is the path of a TOML file, a Config, or
a function that takes fields of Config as keywords and returns one.
"""


class Value(NamedTuple):
    """A field's value, or one thing of a field that holds more, and where it comes from, for people."""

    value: Any
    origin: str
    table: Table | None = None


@dataclass
class Merged:
    """What comes of the layers. values: of each field that any of them names; preset: the last of them, if it is one; is_for_project:
    that has looked into the working_dir.
    """

    values: dict[str, list[Value]] = field(default_factory=dict)
    preset: str = ""
    is_for_project: bool = False

    def given(self) -> dict[str, Any]:
        """Return the fields as Config takes them."""
        return {
            name: tuple(item.value for item in items) if name in LISTS else items[0].value
            for name, items in self.values.items()
        }

    def config(self) -> Config:
        """Return the Config.

        Raises:
            PolicyError: two of its fields do not go together. ConfigError: the same, of what no file says.
        """
        try:
            config = Config(**self.given())
        except ConfigError as error:
            for item in self.values.get(error.field, ()):
                if item.table and (item.value == error.value or error.field not in LISTS):
                    raise item.table.error(error.field, error.value, error.remedy) from None
            raise
        return config.for_project() if self.is_for_project else config

    def add(self, layer: Mapping[str, Any], origin: Origin) -> None:
        """Add what a layer says that lies behind all that are there.

        A value is the nearest layer's. Paths, variables and names add up; a path that a nearer layer names is in that one's
        field, whatever this one makes of it.
        """
        claimed = {item.value for name in PATH_LISTS for item in self.values.get(name, ())}
        for name, value in layer.items():
            here = self.values.get(name)
            if name not in LISTS:
                self.values.setdefault(name, [Value(value, *origin(name))])
                continue
            taken = claimed if name in PATH_LISTS else {item.value for item in here or ()}
            if name == "env":
                keys = {item.value[0] for item in here or ()}
                taken = {pair for pair in value if pair[0] in keys}
            self.values[name] = [*(here or ()), *(Value(item, *origin(name)) for item in value if item not in taken)]


class Origin(NamedTuple):
    """Where a layer's values come from."""

    label: str
    table: Table | None = None

    def __call__(self, name: str) -> tuple[str, Table | None]:
        """Return the same of one field."""
        return self.table.origin(name) if self.table else self.label, self.table


def merge(found: Iterator[Table | str], changes: Options, *, whole: bool = True) -> Merged:
    """Return what comes of the layers, with the changes before them.

    Args:
        whole: False: what a preset needs to be given may be missing, and then what it makes of that.

    Raises:
        ConfigError: something is not valid.
    """
    result = Merged()
    result.add(normalised_changes(changes), Origin("given"))
    for layer in found:
        if isinstance(layer, Table):
            result.add(normalised(layer), Origin("", layer))
        else:
            result.preset = layer
            made, result.is_for_project = made_of(layer, result.given(), whole=whole)
            result.add(made, Origin(f"preset {layer}"))
    return result


def lacking(found: Merged) -> Iterator[str]:
    """Yield the fields that a preset needs and nobody gave."""
    if found.preset in presets.names():
        yield from (name for name in presets.needs(found.preset) if found.given().get(name) is None)


# --- which layers there are ---


def layers(place: tuple[File, str] | str, before: tuple[str, ...] = ()) -> Iterator[Table | str]:
    """Yield a policy and what it extends, nearest first. A str is a preset: what it makes of the fields before it.

    Args:
        before: Presets of other distributions that extend it.

    Raises:
        PolicyError: there is none of that name, or they extend one another in a circle.
    """
    seen: list[tuple[str, str]] = []
    while not isinstance(place, str):
        file, name = place
        table = file.tables[name]
        yield table
        seen.append((file.path, name))
        base = table.values.get("extends")
        if not isinstance(base, str):
            return
        place = base_of(table, file, base)
        if not isinstance(place, str) and (place[0].path, place[1]) in seen:
            circle = " -> ".join((*(name for _, name in seen), base))
            raise table.error("extends", base, f"in a circle: {circle}")
    yield from preset_layers(place, before)


def base_of(table: Table, file: File, base: str) -> tuple[File, str] | str:
    """Return what a policy extends: of its own file, of the user's, or a preset. One that extends its own name means another's.

    Raises:
        PolicyError: there is none of that name.
    """
    if base in file.tables and base != table.name:
        return file, base
    user = None if file.path == str(user_file()) else user_policies()
    if user is not None and base in user.tables:
        return user, base
    if is_preset(base):
        return base
    known = dict.fromkeys((*file.tables, *(user.tables if user else ()), *preset_names()))
    raise table.error("extends", base, f"no such policy; {suggestion(base, [name for name in known if name != table.name], 'known:')}")


def preset_layers(name: str, before: tuple[str, ...]) -> Iterator[Table | str]:
    """Yield the layers of a preset: itself, or those of the file that another distribution's is.

    Raises:
        ConfigError: it extends itself.
    """
    if name in before:
        raise ConfigError("preset", name, f"in a circle: {' -> '.join((*before, name))}")
    made = "" if name in presets.names() else entry_points()[name].load()
    if not made or not is_path(made):
        yield name
        return
    file = read(made, f"preset {name}")
    yield from layers((file, name if name in file.tables else choose(file, None)), (*before, name))


# --- presets ---


def entry_points() -> dict[str, Any]:
    """Return the presets of other distributions."""
    from importlib import metadata

    return {item.name: item for item in metadata.entry_points(group=ENTRY_POINTS)}


def preset_names() -> list[str]:
    """Return the names of all presets: ours, then those of other distributions."""
    return [*presets.names(), *(name for name in entry_points() if name not in presets.names())]


def is_preset(name: str) -> bool:
    """Return whether there is a preset of that name; for one of ours no other distribution is asked."""
    return name in presets.names() or name in entry_points()


def is_path(made: object) -> bool:
    return isinstance(made, str) or hasattr(made, "__fspath__")


def made_of(name: str, given: dict[str, Any], *, whole: bool) -> tuple[dict[str, Any], bool]:
    """Return the fields that a preset makes of those that are given, and whether it has looked into a project.

    Raises:
        ConfigError: it refuses them, or makes no Config.
    """
    if name in presets.names():
        return normalised_changes(presets.fields_of(name, given, whole=whole)), bool(presets.needs(name))
    point = entry_points()[name]
    made = point.load()
    config = made(**given) if callable(made) else made
    if not isinstance(config, Config):
        raise ConfigError("preset", name, f"{point.value} is no path, no Config, and no function that returns one")
    return {item: getattr(config, item) for item in FIELDS if getattr(config, item) != DEFAULTS[item]}, config.is_for_project
