"""The `-o` options of mount(8), as far as they mean something for a FUSE mount."""

from overlayd.errors import UsageError

_FLAGS = frozenset(
    ("ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync")
    + ("atime", "noatime", "allow_other", "default_permissions")
)
_VALUES = frozenset(("fsname", "subtype", "max_read"))
_OURS = frozenset(("nonempty",))
"""Acted on here and not passed on."""
_MKDIR = ("x-mount.mkdir", "X-mount.mkdir")
"""Ours too; mount(8) knows both spellings: the first one stays in its records, the second not."""
_MKDIR_MODE = 0o755
_IGNORED = frozenset(
    ("defaults", "nofail", "_netdev", "auto", "noauto", "user", "users", "nouser", "owner", "group")
    + ("relatime", "norelatime", "strictatime", "nodiratime", "diratime", "lazytime", "loop")
    + ("silent", "loud", "mand", "nomand", "iversion", "noiversion", "_rnetdev")
)
_SAFE_IN_FSNAME = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+=:@%~"
)
_FSNAME_MAX = 128


def parse_mount_options(texts: tuple[str, ...]) -> frozenset[str]:
    """Read the values of all `-o` options; what fstab has for others is accepted and dropped.

    Raises UsageError for an option that is unknown or lacks its value.
    """
    words = [word for text in texts for word in text.split(",") if word]
    return frozenset(word for word in words if _is_meant_for_us(word))


def _is_meant_for_us(word: str) -> bool:
    name, equals, value = word.partition("=")
    if name in _MKDIR:
        _mode(word)
        return True
    if name in _IGNORED or name.startswith(("x-", "X-", "comment")):
        return False
    if name in _VALUES:
        if not value:
            raise UsageError(f"-o {word}: {name} needs a value, as in {name}=VALUE")
        return True
    if (name in _FLAGS or name in _OURS) and not equals:
        return True
    raise UsageError(f"-o {word}: unknown mount option; known are {', '.join(known_options())}")


def known_options() -> list[str]:
    """Every option that is acted on or passed on; those with a value end in `=`."""
    return sorted(_FLAGS | _OURS) + [f"{name}=" for name in sorted(_VALUES)] + [_MKDIR[0]]


def target_mode(asked: frozenset[str]) -> int | None:
    """The mode of a target that is to be created where it is missing; None: it must be there."""
    for word in asked:
        if word.partition("=")[0] in _MKDIR:
            return _mode(word)
    return None


def _mode(word: str) -> int:
    _, equals, value = word.partition("=")
    if not equals:
        return _MKDIR_MODE
    try:
        mode = int(value, 8) if value.isdecimal() else -1
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise UsageError(f"-o {word}: give the directory's mode in octal, as in x-mount.mkdir=0555")
    return mode


def fuse_options(asked: frozenset[str], hosts: list[str], *, allow_other: bool) -> set[str]:
    """What libfuse is given: the user's options over our defaults (nosuid and nodev are its own).

    Ordinary permission checks per caller come with `allow_other`: without them the kernel asks
    nobody whether a caller may search a directory. A mount for its own user alone does without,
    since the host checks the same user, and access(2) then reaches us, who know what is read-only.
    """
    ours = _OURS.union(_MKDIR)
    options = {option for option in asked if option.partition("=")[0] not in ours}
    named = {option.partition("=")[0] for option in options}
    if "fsname" not in named:
        options.add(f"fsname={_telling_name(hosts)}")
    if "subtype" not in named:
        options.add("subtype=overlayd")
    if allow_other:
        options |= {"allow_other", "default_permissions"}
    return options


def _telling_name(hosts: list[str]) -> str:
    """The sources, for the first column of mount(8) and df(1)."""
    text = "+".join(hosts)
    text = "".join(c if c in _SAFE_IN_FSNAME else "_" for c in text)
    return text if len(text) <= _FSNAME_MAX else text[: _FSNAME_MAX - 3] + "..."
