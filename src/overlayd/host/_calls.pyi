from typing import TypeVar

Status = TypeVar("Status", bound=tuple[object, ...])

def statx(directory: int, name: bytes, flags: int, kind: type[Status], /) -> Status: ...
def statx_many(
    directory: int, names: list[bytes], flags: int, kind: type[Status], /
) -> list[Status | None]: ...
