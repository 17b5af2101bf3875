"""What a user may call says what it is: public classes, functions and methods, where not their base class of this package does."""

import importlib
import inspect
import pkgutil

import pytest

import throughtime

# of the engine's inside only what `throughtime.scanning` gives away
ROOMS = ["throughtime"] + [
    name
    for _, name, _ in pkgutil.walk_packages(throughtime.__path__, "throughtime.")
    if not name.startswith("throughtime.scanning.")
]


def documented(kind, name):
    """Whether a class of this package says what a name of `kind` is."""
    for base in kind.__mro__:
        found = vars(base).get(name)
        if found is None or (base.__module__.partition(".")[0] != "throughtime" and name == "forward"):
            continue  # torch.nn.Module says of any forward that it is one
        found = getattr(found, "__func__", getattr(found, "fget", found))
        if (found.__doc__ or "").strip():
            return True
    return False


def undocumented(module):
    """The public names without a docstring of what a module defines, or a package gives away."""
    for name, value in vars(module).items():
        if name.startswith("_") or not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        mine = hasattr(module, "__path__") and value.__module__.startswith("throughtime")
        if value.__module__ != module.__name__ and not mine:
            continue
        if not (value.__doc__ or "").strip():
            yield name
        if inspect.isclass(value) and value.__module__.startswith("throughtime"):
            for method, what in vars(value).items():
                function = what.fget if isinstance(what, property) else what
                if getattr(function, "__name__", "") == "<lambda>":  # an attribute, which the class tells of
                    continue
                callable_ = inspect.isroutine(what) or isinstance(what, property | classmethod | staticmethod)
                if callable_ and not method.startswith("_") and not documented(value, method):
                    yield f"{name}.{method}"


@pytest.mark.parametrize("room", ROOMS)
def test_public_names_say_what_they_are(room):
    module = importlib.import_module(room)
    assert (module.__doc__ or "").strip(), "what the file is about"
    assert list(undocumented(module)) == []


def test_what_says_nothing_is_found():
    class Base:
        """A base."""

        def said(self):
            """What it does."""

    class Kind(Base):
        def said(self):
            pass

        def unsaid(self):
            pass

    Base.__module__ = Kind.__module__ = "throughtime.seeded"
    seeded = type(throughtime)("throughtime.seeded", "A module.")
    seeded.Base, seeded.Kind = Base, Kind
    assert list(undocumented(seeded)) == ["Kind", "Kind.unsaid"]
