"""The users of a server, read from a TOML file: hashes of their tokens, and how much each may use.

    [anna]
    sha256 = "..."      # of the token; `tubelet serve --new-user anna` makes both
    megabytes = 5000    # of videos, results and models that are kept
    waiting = 4         # jobs in the queue at the same time
    jobs_a_day = 200    # jobs and trainings asked for in 24 hours

A token has 192 random bits, so a fast hash of it is as good as a slow one.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import tomllib
from pathlib import Path

from pydantic import Field

from tubelet.core.config import Config
from tubelet.core.errors import ConfigError, InputError
from tubelet.core.untrusted.files import read_text

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")
TOKEN_BYTES = 24


class User(Config):
    """One user; the one without a name is whoever uses a server that has no file of users."""

    name: str = ""
    sha256: str = Field(default="", pattern=r"^([0-9a-f]{64})?$")
    megabytes: int | None = Field(default=5000, ge=1)
    waiting: int | None = Field(default=4, ge=1)
    jobs_a_day: int | None = Field(default=200, ge=1)

    def sees(self, owner: str) -> bool:
        """Whether this user may see what belongs to `owner`."""
        return not self.name or owner == self.name

    def qualified(self, name: str) -> str:
        """The name of a model of this user, as on a hub: two users may choose the same.

        >>> User(name="anna").qualified("goats"), EVERYONE.qualified("goats")
        ('anna/goats', 'goats')
        """
        return f"{self.name}/{name}" if self.name else name


EVERYONE = User(megabytes=None, waiting=None, jobs_a_day=None)


def read_users(path: Path) -> tuple[User, ...]:
    """Read a file of users. Raises InputError, in one line, if it has another form, or none at all."""
    try:
        tables = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: expected TOML ({error})") from None

    users = [_user(name, fields, path) for name, fields in tables.items()]
    if not users:
        raise InputError(f"{path}: expected a table for each user, such as [anna]; `--new-user NAME` prints one")
    if len({user.sha256 for user in users}) < len(users):
        raise InputError(f"{path}: two users have the same token")
    return tuple(users)


def _user(name: str, fields: object, path: Path) -> User:
    check_name(name, str(path))
    if not isinstance(fields, dict) or "sha256" not in fields or not fields["sha256"]:
        raise InputError(f"{path}: expected a table [{name}] with the sha256 of a token")
    try:
        return User.from_tree({**fields, "name": name})
    except ConfigError as error:
        raise InputError(f"{path}: [{name}] {error}") from None


def check_name(name: str, where: str) -> None:
    """Raise InputError unless a user can have this name."""
    if not NAME.fullmatch(name):
        raise InputError(f"{where}: expected a name of 1 to 40 letters, digits, dots, - or _, got {name[:60]!r}")


def new_token() -> str:
    """A random token."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def hash_of(token: str) -> str:
    """The SHA-256 of a token, as hexadecimal digits.

    >>> hash_of("a")[:8]
    'ca978112'
    """
    return hashlib.sha256(token.encode()).hexdigest()


def user_of(token: str, users: tuple[User, ...]) -> User | None:
    """The user of a token. All are compared, each in constant time, so that time does not tell who was nearly it."""
    digest = hash_of(token)
    found = None
    for user in users:
        if secrets.compare_digest(digest, user.sha256):
            found = user
    return found
