"""Interprets pickles without importing, calling or changing anything that they name.

``pickle.Unpickler`` imports names, calls them, and lets a file set attributes, extend or index
whatever it has built. This machine knows only the opcodes that plain data needs. A name is
looked up in a table and stands for a constructor of this package; any other name becomes an
inert :class:`Ignored` and is reported.
"""

from __future__ import annotations

import io
import pickletools
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from jmp_md.bounds import tree_problem
from jmp_md.errors import CheckpointError

# A large checkpoint has some 50,000; the limit bounds the time and memory a hostile one takes.
MAX_OPERATIONS = 1_000_000
MAX_CALLS = 200_000  # objects that are more than a few bytes
MAX_REFUSED = 200
_EXPANSION = 8  # times the bytes of the file, for what is shared
_MAX_KEY = 1 << 60  # integers below have hashes of their own
_DOTTED = re.compile(r"[\w.<>]{1,300}")


class Budget:
    """What reading one file may take, however many pickles it holds.

    Args:
        n_bytes: Size of all its pickles.
        operations: Most operations.
    """

    def __init__(self, n_bytes: int, operations: int = MAX_OPERATIONS) -> None:
        self.n_bytes = n_bytes
        self._most_operations = self._operations = operations
        self._calls = MAX_CALLS
        self._copied = 4 * n_bytes + 1024

    def operation(self) -> None:
        """Count one operation."""
        self._operations -= 1
        if self._operations < 0:
            raise CheckpointError(f"more than {self._most_operations} pickle operations")

    def call(self) -> None:
        """Count one object that is built."""
        self._calls -= 1
        if self._calls < 0:
            raise CheckpointError(f"more than {MAX_CALLS} objects")

    def copy(self, amount: int) -> None:
        """Count bytes or items that are copied, which shared ones may be more than once."""
        self._copied -= amount
        if self._copied < 0:
            raise CheckpointError("the same bytes are used again and again")


class Constructor(NamedTuple):
    """The meaning of an allowed name: what a pickle builds when it "calls" that name."""

    build: Callable[..., object]


class Ignored:
    """Stands for an object of an unknown class; keeps nothing of it but the name."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<ignored {self.name}>"


class Record(dict[str, Any]):
    """Attributes of a plain data object (PyG ``Data``, argparse ``Namespace``) as a mapping."""

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over public attributes that are set, from any layout PyG has used."""
        for nested in ("_store", "_mapping"):  # PyG 2; PyG 1 kept its data in __dict__
            state = state.get(nested, state)
        if not isinstance(state, dict) or not all(type(key) is str for key in state):
            raise CheckpointError("attributes that are no mapping of names")
        public = {key: value for key, value in state.items() if not key.startswith("_")}
        self.update((key, value) for key, value in public.items() if value is not None)


class Machine:
    """Runs pickles of protocol 2 to 5.

    Args:
        names: Dotted name -> the :class:`Constructor` or the plain value it stands for.
        set_state: ``(object, state)``, gives a built object its state or refuses.
        load_persistent: Resolves a persistent id (torch's references to storages).
        ignore: Names replaced by :class:`Ignored` without complaint.
        budget: What the file may take.
    """

    def __init__(
        self,
        names: Mapping[str, object],
        set_state: Callable[[Any, Any], None],
        budget: Budget,
        load_persistent: Callable[[Any], object] | None = None,
        ignore: Collection[str] = (),
    ) -> None:
        self.names = names
        self.set_state = set_state
        self.load_persistent = load_persistent
        self.ignore = frozenset(ignore)
        self.budget = budget
        self.refused: dict[str, None] = {}  # in the order of the file
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: io.BytesIO) -> Any:
        """Interpret one pickle, up to and including its STOP.

        Raises:
            CheckpointError: The pickle does what plain data does not need.
            Exception: Of whatever kind, when the pickle is damaged.
        """
        self.stack, self.marks, self.memo = [], [], {}
        for opcode, argument, _ in pickletools.genops(stream):
            self.budget.operation()
            if opcode.name in _LITERALS:
                self.stack.append(argument)
            elif opcode.name in _CONSTANTS:
                self.stack.append(_CONSTANTS[opcode.name])
            elif opcode.name in _OPERATIONS:
                _OPERATIONS[opcode.name](self, argument)
            elif opcode.name not in ("PROTO", "FRAME", "STOP"):
                raise CheckpointError(
                    f"pickle operation {opcode.name}, which plain data does not need"
                )
        (result,) = self.stack
        if problem := tree_problem(result, _EXPANSION * self.budget.n_bytes + 100_000):
            raise CheckpointError(problem)
        return result

    def _mark(self, _: object) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def _to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _tuple(self, _: object) -> None:
        items = self._to_mark()
        self.stack.append(tuple(items))

    def _last_to_tuple(self, n: int) -> None:
        if len(self.stack) < n:
            raise CheckpointError("an operation on an empty stack")
        self.stack[-n:] = [tuple(self.stack[-n:])]

    def _append(self, items: Iterable[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise CheckpointError("items appended to something that is not a list")
        self.stack[-1].extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Ignored):
            return
        if not isinstance(target, dict):
            raise CheckpointError("items set on something that is not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            require_key(key)
            target[key] = value

    def _put(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def _name(self, module: object, name: object) -> None:
        if type(module) is not str or type(name) is not str:
            raise CheckpointError("a name that is not text")
        dotted = f"{module}.{name}" if len(module) + len(name) < 300 else ""
        if dotted in self.names:
            self.stack.append(self.names[dotted])
            return
        if not _DOTTED.fullmatch(dotted):
            raise CheckpointError("a name that is no name of anything in Python")
        if dotted not in self.ignore:
            self.refused[dotted] = None
        if len(self.refused) > MAX_REFUSED:
            raise CheckpointError(f"more than {MAX_REFUSED} names")
        self.stack.append(Ignored(dotted))

    def _call(self, _: object) -> None:
        self.budget.call()
        arguments, target = self.stack.pop(), self.stack.pop()
        if type(arguments) is not tuple:
            raise CheckpointError("a call without an argument tuple")
        if isinstance(target, Ignored):
            self.stack.append(Ignored(target.name))
        elif isinstance(target, Constructor):
            self.stack.append(target.build(*arguments))
        else:
            raise CheckpointError(f"a call of a {type(target).__name__}")

    def _call_with_keywords(self, _: object) -> None:
        keywords, arguments, target = self.stack.pop(), self.stack.pop(), self.stack.pop()
        if keywords and not isinstance(target, Ignored):
            raise CheckpointError("a call with keywords")
        self.stack += [target, arguments]
        self._call(None)

    def _build(self, _: object) -> None:
        state = self.stack.pop()
        self.budget.call()
        if not isinstance(self.stack[-1], Ignored):
            self.set_state(self.stack[-1], state)

    def _persistent(self, _: object) -> None:
        if self.load_persistent is None:
            raise CheckpointError("a reference to data outside the pickle")
        self.budget.call()
        self.stack.append(self.load_persistent(self.stack.pop()))


_LITERALS = frozenset(
    (
        *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}

_OPERATIONS: dict[str, Callable[[Machine, Any], None]] = {
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "MARK": Machine._mark,
    "TUPLE": Machine._tuple,
    "TUPLE1": lambda m, _: m._last_to_tuple(1),
    "TUPLE2": lambda m, _: m._last_to_tuple(2),
    "TUPLE3": lambda m, _: m._last_to_tuple(3),
    "APPEND": lambda m, _: m._append([m.stack.pop()]),
    "APPENDS": lambda m, _: m._append(m._to_mark()),
    "SETITEM": lambda m, _: m._set_items([m.stack.pop(-2), m.stack.pop()]),
    "SETITEMS": lambda m, _: m._set_items(m._to_mark()),
    "BINPUT": Machine._put,
    "LONG_BINPUT": Machine._put,
    "MEMOIZE": Machine._put,
    "BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "LONG_BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "GLOBAL": lambda m, text: m._name(*text.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m._name(m.stack.pop(-2), m.stack.pop()),
    "REDUCE": Machine._call,
    "NEWOBJ": Machine._call,
    "NEWOBJ_EX": Machine._call_with_keywords,
    "BUILD": Machine._build,
    "BINPERSID": Machine._persistent,
}


def require_key(key: object) -> None:
    """Refuse what can take for ever to hash (tuples of shared tuples), or to find by its hash."""
    if isinstance(key, int) and not -_MAX_KEY < key < _MAX_KEY:
        raise CheckpointError("an integer of more than 60 bits as a dict key")
    if not isinstance(key, str | int | float | bytes | Ignored | None):
        raise CheckpointError(f"a {type(key).__name__} as a dict key")
