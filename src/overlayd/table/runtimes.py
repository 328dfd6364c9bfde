"""What `overlayd run` knows of WASI runtimes: how each spells its directory options.

One entry per runtime, from what its own command line accepts:

- wasmtime: https://docs.wasmtime.dev/cli-options.html; `--dir HOST[::GUEST]`, a third field is
  ignored; `--mapdir GUEST::HOST` up to version 13; what follows the module is the guest's.
- wasmer: https://docs.wasmer.io/runtime/cli; `--volume HOST[:GUEST]`, before version 6
  `--mapdir GUEST:HOST` and `--dir DIR`; its options may follow the module, up to `--`.
- WasmEdge: https://wasmedge.org/docs/start/build-and-run/cli; `--dir GUEST:HOST[:readonly]`.
- wazero: https://github.com/tetratelabs/wazero/tree/main/cmd/wazero; `-mount=HOST[:GUEST][:ro]`
  of `wazero run`, with one dash or two.
- iwasm: https://github.com/bytecodealliance/wasm-micro-runtime/blob/main/doc/build_wamr.md;
  `--dir=DIR` and `--map-dir=GUEST::HOST`, never as two words.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from overlayd.errors import UsageError
from overlayd.table.guest_path import printable
from overlayd.table.preopen import Preopen, make_preopen, parse_preopen

PLACEHOLDER = "{}"
"""What in COMMAND's arguments stands for the target."""


# -- how a value names host and guest -------------------------------------------------------------


class Fields(NamedTuple):
    """A value taken apart; no *guest* means the host path as written."""

    host: str
    guest: str | None = None
    read_only: bool = False


def _same(value: str) -> Fields:
    return Fields(value)


def _guest_host(value: str) -> Fields:
    """`GUEST::HOST`."""
    guest, separator, host = value.partition("::")
    if not separator:
        raise ValueError("has no '::'; the form is GUEST::HOST")
    return Fields(host, guest)


def _host_colon_guest(value: str) -> Fields:
    """`HOST[:GUEST]`."""
    host, *guest = value.split(":")
    if len(guest) > 1:
        raise ValueError("has more than one ':'; the form is HOST:GUEST")
    return Fields(host, guest[0] if guest else None)


def _guest_colon_host(value: str) -> Fields:
    """`GUEST:HOST`, or with `::` as wasmer took it for a time."""
    for separator in ("::", ":"):
        guest, found, host = value.partition(separator)
        if found:
            return Fields(host, guest)
    return Fields(value)


def _guest_colon_host_mode(value: str) -> Fields:
    """`[GUEST:]HOST[:readonly]`; WasmEdge itself takes any other third word for read-write."""
    guest, colon, rest = value.partition(":")
    if not colon:
        return Fields(value)
    host, colon, mode = rest.partition(":")
    if colon and mode not in ("readonly", "readwrite"):
        raise ValueError(f"has an unknown mode {mode!r}; it is readonly or readwrite")
    return Fields(host, guest, mode == "readonly")


def _host_colon_guest_mode(value: str) -> Fields:
    """`HOST[:GUEST][:ro]`, the guest after the last colon."""
    bare = value.removesuffix(":ro")
    host, colon, guest = bare.rpartition(":")
    return Fields(host, guest, bare != value) if colon else Fields(bare, None, bare != value)


# -- the table ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spelling:
    """One directory option of a runtime."""

    option: str
    read: Callable[[str], Fields] | None
    """Takes a value apart, raising ValueError; None for overlayd's own grammar."""
    root: str | None = None
    """How the target is given as the guest's `/`, `{}` standing for it; None where it cannot."""
    joined: bool = False
    """Whether the value is written into the option's own word, after `=`."""

    def words(self, target: str) -> list[str]:
        """The option that makes *target* the guest's root. Raises UsageError."""
        assert self.root is not None
        if ":" in target:
            raise UsageError(
                f"the target {printable(target)} holds a ':', which {self.option} takes for a"
                " separator; set TMPDIR to a directory without one"
            )
        value = self.root.replace(PLACEHOLDER, target)
        return [f"{self.option}={value}"] if self.joined else [self.option, value]


@dataclass(frozen=True, slots=True)
class Runtime:
    """The command line of one runtime, as far as its directories are concerned."""

    name: str
    spellings: tuple[Spelling, ...]
    """Its directory options; the first that can name the root is how one is added."""
    valued: frozenset[str]
    """Its other options that take the next word as their value."""
    flags: frozenset[str] = frozenset()
    """Its options that never do."""
    verbs: frozenset[str] = frozenset(("run",))
    """The subcommands that run a guest."""
    bare: bool = True
    """Whether it runs a guest without a subcommand too."""
    other_verbs: frozenset[str] = frozenset()
    """Subcommands that do something else, so that they are not taken for a module."""
    interleaved: bool = False
    """Whether its options may follow the module, up to `--`."""
    one_dash: bool = False
    """Whether `-name` and `--name` are the same."""
    joined_only: bool = False
    """Whether an option it does not list never takes the next word."""
    ignores_mode: bool = False
    """Whether it ignores a third field without a word."""

    def option_of(self, word: str) -> str:
        """The option in *word*, as the table writes it."""
        name = word.partition("=")[0]
        return name[1:] if self.one_dash and name.startswith("--") else name

    def spelling_of(self, word: str) -> Spelling | None:
        """The directory option that *word* is."""
        name = self.option_of(word)
        for spelling in self.spellings:
            if spelling.option == name and ("=" in word or not self.joined_only):
                return spelling
        return None

    def takes_next(self, word: str, if_unknown: bool) -> bool:
        """Whether *word* takes the next one as its value."""
        name = self.option_of(word)
        if "=" in word or name in self.flags:
            return False
        return name in self.valued or (if_unknown and not self.joined_only)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


RUNTIMES = {
    runtime.name: runtime
    for runtime in (
        Runtime(
            "wasmtime",
            (
                Spelling("--dir", None, "{}::/"),
                Spelling("--mapdir", _guest_host, "/::{}"),
            ),
            valued=_words(
                "--env --invoke --preload --argv0 --profile --addr --shutdown-addr --config"
                " --target -O --optimize -C --codegen -D --debug -W --wasm -S --wasi"
                " --wasm-timeout --tcplisten --wasm-features --wasi-modules --opt-level"
                " --cranelift-set --cranelift-enable --fuel --max-wasm-stack --profiler"
            ),
            flags=_words(
                "-h --help -V --version --allow-precompiled --no-logging-prefix -g --listenfd"
                " --disable-cache --disable-logging --disable-parallel-compilation"
                " --allow-unknown-exports --trap-unknown-imports --default-values-unknown-imports"
            ),
            verbs=_words("run serve"),
            other_verbs=_words(
                "compile config explore help settings wast wizer completion hot-blocks objdump"
            ),
            ignores_mode=True,
        ),
        Runtime(
            "wasmer",
            (
                Spelling("--volume", _host_colon_guest, "{}:/"),
                Spelling("--mapdir", _guest_colon_host, "/:{}"),
                Spelling("--dir", _same),
            ),
            valued=_words(
                "--env --use --include-webc --map-command --journal --with-compact-on-growth"
                " --snapshot-on --snapshot-period --enable-cpu-backoff --stack-size -e"
                " --entrypoint --command --command-name -i --invoke --coredump-on-trap"
                " --hash-algorithm --wasmer-dir --cache-dir --registry --token -a --addr"
            ),
            other_verbs=_words(
                "add app auth binfmt cache compile config container create-exe create-obj deploy"
                " domain gen-c-header gen-completions help init inspect journal login logout"
                " namespace package publish self-update ssh validate wast whoami"
            ),
            interleaved=True,
        ),
        Runtime(
            "wasmedge",
            (Spelling("--dir", _guest_colon_host_mode, "/:{}"),),
            valued=_words(
                "--env --time-limit --gas-limit --memory-page-limit --forbidden-plugin --nn-preload"
            ),
            flags=_words("-h --help -v --version --reactor --force-interpreter --coredump-on-trap"),
            other_verbs=_words("compile instantiate parse validate"),
        ),
        Runtime(
            "wazero",
            (Spelling("-mount", _host_colon_guest_mode, "{}:/", joined=True),),
            valued=_words("-env -listen -timeout -hostlogging -cpuprofile -memprofile -cachedir"),
            flags=_words("-h -help -interpreter -env-inherit -optimizing-compiler"),
            bare=False,
            one_dash=True,
        ),
        Runtime(
            "iwasm",
            (
                Spelling("--map-dir", _guest_host, "/::{}", joined=True),
                Spelling("--dir", _same),
            ),
            valued=_words("-f --function"),
            verbs=frozenset(),
            joined_only=True,
        ),
    )
}


# -- reading a command ----------------------------------------------------------------------------


class Option(NamedTuple):
    """One directory option of a command: *length* words from *place*."""

    place: int
    length: int
    spelling: Spelling
    value: str


@dataclass(frozen=True, slots=True)
class GuestCommand:
    """A COMMAND that runs a guest under a runtime of the table."""

    runtime: Runtime
    words: tuple[str, ...]
    options: tuple[Option, ...]
    """Its directory options, in the order in which they come."""
    start: int | None
    """Where an option can be added; None where COMMAND names no module (`--version`, for one)."""

    @property
    def names_target(self) -> bool:
        """Whether COMMAND says itself where the target goes, and so is left as it is."""
        looked_at = [option.value for option in self.options] or self.words
        return any(PLACEHOLDER in text for text in looked_at)

    def preopens(self) -> list[Preopen]:
        """The directory options as entries of the table. Raises UsageError, naming the option."""
        return [self._preopen(option) for option in self.options]

    def ignored_modes(self) -> list[str]:
        """The values whose third field the runtime would ignore, and which is not `rw`."""
        if not self.runtime.ignores_mode:
            return []
        values = [option.value for option in self.options if option.spelling.read is None]
        return [value for value in values if value.split("::")[2:] not in ([], ["rw"])]

    def with_target(self, target: str) -> list[str]:
        """COMMAND with one directory option, *target* as the guest's `/`. Raises UsageError."""
        gone = {at for o in self.options for at in range(o.place, o.place + o.length)}
        place = self.options[0].place if self.options else self.start
        if place is None:
            return fill_in(self.words, target)
        kept = [fill_in([w], target)[0] for i, w in enumerate(self.words) if i not in gone]
        at = sum(index not in gone for index in range(place))
        return kept[:at] + self._spelling().words(target) + kept[at:]

    def _spelling(self) -> Spelling:
        """What this version of the runtime is known to take, since COMMAND has it, or the newest.

        A wasmer given --dir may be so old that it has no --volume; all have --mapdir.
        """
        spellings = [option.spelling for option in self.options]
        if spellings and self.runtime.spellings[0] not in spellings:
            spellings += reversed(self.runtime.spellings)
        spellings += self.runtime.spellings
        return next(spelling for spelling in spellings if spelling.root is not None)

    def _preopen(self, option: Option) -> Preopen:
        origin = f"{self.runtime.name} {option.spelling.option} {printable(option.value)}"
        if option.spelling.read is None:
            return parse_preopen(option.value, origin)
        try:
            host, guest, read_only = option.spelling.read(option.value)
        except ValueError as error:
            raise UsageError(f"{origin}: {printable(str(error))}") from None
        return make_preopen(host, guest, read_only, origin)


def fill_in(words: tuple[str, ...] | list[str], target: str) -> list[str]:
    """*words* with *target* in the place of `{}`."""
    return [word.replace(PLACEHOLDER, target) for word in words]


def runtime_of(words: tuple[str, ...]) -> str:
    """The name that decides: that of the file COMMAND starts."""
    return words[0].rpartition("/")[2]


def read_command(words: tuple[str, ...], *, guess: bool = False) -> GuestCommand | None:
    """What *words* say about a guest's directories; None where no runtime of the table runs one.

    An option that the table does not have may take the next word as its value, and what follows
    may then be the runtime's or the guest's. Raises UsageError where that matters; with *guess*
    such an option counts as one without a value.
    """
    runtime = RUNTIMES.get(runtime_of(words))
    if runtime is None:
        return None
    short = _walk(runtime, words, if_unknown=False)
    long = _walk(runtime, words, if_unknown=True)
    if not guess and (short and short.options) != (long and long.options):
        raise UsageError(
            f"{runtime.name}: cannot tell which directory options are its own and which the"
            " guest's, after an option not known here; put them first, or add --keep-dirs"
        )
    return short


def _walk(runtime: Runtime, words: tuple[str, ...], if_unknown: bool) -> GuestCommand | None:
    options: list[Option] = []
    start, index = 1, 1
    has_verb = not runtime.verbs
    has_module = False
    while index < len(words):
        word = words[index]
        option = _directory_option(runtime, words, index)
        if word == "--":
            has_module = has_module or index + 1 < len(words)
            break
        if option is not None:
            options.append(option)
            index += option.length
        elif _is_option(word):
            followed = index + 1 < len(words) and not _is_option(words[index + 1])
            index += 2 if followed and runtime.takes_next(word, if_unknown) else 1
        elif word in runtime.verbs and not (has_verb or has_module):
            has_verb = True
            index += 1
            start = index
        elif not (has_verb or has_module) and (word in runtime.other_verbs or not runtime.bare):
            return None
        else:
            has_module = True
            index += 1
            if not runtime.interleaved:
                break
    return GuestCommand(runtime, words, tuple(options), start if has_module else None)


def _directory_option(runtime: Runtime, words: tuple[str, ...], index: int) -> Option | None:
    spelling = runtime.spelling_of(words[index])
    if spelling is None:
        return None
    _, equals, value = words[index].partition("=")
    if equals:
        return Option(index, 1, spelling, value)
    if index + 1 == len(words):
        return None  # the runtime will complain
    return Option(index, 2, spelling, words[index + 1])


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-"
