"""Addresses of PostgreSQL stores: what is ours in them, what is libpq's, and what people may see."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode

from cagg.errors import ConfigurationError
from cagg.masking import masked

__all__ = ["PostgresAddress", "is_postgresql", "masked"]

_SCHEMES = frozenset({"postgres", "postgresql", "postgresql+psycopg"})
_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_EXAMPLE = "postgresql://user@host:5432/database"
_LARGEST_POOL = 256


def is_postgresql(url: str) -> bool:
    """True for an address that names PostgreSQL, in whatever spelling."""
    return "://" in url and url.partition("://")[0].lower().startswith("postgres")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class PostgresAddress:
    """Where a store lies.

    Attributes:
        conninfo: for libpq, with the password if the address had one.
        shown: for people, without it.
        schema: the schema that holds the tables; None = the role's own (normally ``public``).
        pool: how many idle connections a process keeps; 0 = none.
        options: names of libpq's options that the address sets.
    """

    conninfo: str
    shown: str
    schema: str | None
    pool: int
    options: frozenset[str]

    def __repr__(self) -> str:
        return f"PostgresAddress({self.shown!r})"

    def dump_command(self, file: str) -> str:
        """Return the command that backs this database up to a file, without the password.

        Source: PostgreSQL 18, "pg_dump"; the custom format is restored by pg_restore.
        """
        place, _, query = self.conninfo.removeprefix("postgresql://").partition("?")
        user, at, rest = place.rpartition("@")
        options = [item for item in query.split("&") if item and not item.startswith("password=")]
        address = f"postgresql://{user.partition(':')[0]}{at}{rest}" + (f"?{'&'.join(options)}" if options else "")
        schema = () if self.schema is None else (f"--schema={self.schema}",)
        return shlex.join(("pg_dump", "--format=custom", *schema, f"--file={file}", address))

    @classmethod
    def parse(cls, url: str, *, pool: int) -> PostgresAddress:
        """Read ``postgresql://[user[:password]@]host[:port]/database[?option=…]``.

        ``schema`` and ``pool`` are ours, everything else is libpq's, several hosts and ``sslmode`` included.

        Args:
            url: the address; ``postgres://`` and ``postgresql+psycopg://`` mean the same.
            pool: idle connections where the address says nothing.

        Raises:
            ConfigurationError: the scheme is another driver's, or an option of ours cannot be used.
        """
        scheme, _, rest = url.partition("://")
        if scheme.lower() not in _SCHEMES:
            raise ConfigurationError(
                f"the store address '{scheme}://…' names a driver that cagg does not use; write it as {_EXAMPLE!r}."
            )
        if any(character in rest for character in "\x00\r\n\t "):
            raise ConfigurationError(f"the store address {masked(url)!r} has a blank in it; write it as {_EXAMPLE!r}.")
        place, _, query = rest.partition("?")
        if place.count("@") > 1:  # libpq would take a part of the password for the host, and quote it
            raise ConfigurationError(
                f"the store address {masked(url)!r} has two '@'; write '/', '@', ':' and '%' in user and password "
                "percent-encoded, such as %40."
            )
        if "@" in place.partition("/")[2]:  # libpq would take a part of the password for the port, and quote it
            raise ConfigurationError(
                f"the store address {masked(url)!r} has a '/' before its '@'; write '/', '@', ':' and '%' in user and "
                "password percent-encoded, such as %2F."
            )
        if "@" in query:  # the '?' was of the password, of which an option would quote a part
            raise ConfigurationError(
                f"the store address {masked(url)!r} has a '?' before its '@'; write '?', '/', '@', ':' and '%' in "
                "user, password and options percent-encoded, such as %3F and %40."
            )
        try:
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        except ValueError:
            raise ConfigurationError(
                f"the options of the store address {masked(url)!r} cannot be read; write them as '?name=value&…'."
            ) from None
        ours = {key: value for key, value in pairs if key in {"schema", "pool"}}
        schema = ours.get("schema")
        if schema is not None and (not _SCHEMA.fullmatch(schema) or schema.startswith("pg_")):
            raise ConfigurationError(
                f"the schema {schema!r} of the store address must be a plain lower-case name, such as 'cagg'."
            )
        pool_text = ours.get("pool", str(pool))
        if not (pool_text.isascii() and pool_text.isdecimal() and int(pool_text) <= _LARGEST_POOL):
            raise ConfigurationError(
                f"the pool {pool_text!r} of the store address must be a number from 0 to {_LARGEST_POOL}."
            )
        others = [(key, value) for key, value in pairs if key not in ours]
        conninfo = f"postgresql://{place}" + (f"?{urlencode(others, quote_via=quote)}" if others else "")
        return cls(
            conninfo=conninfo,
            shown=masked(url),
            schema=schema,
            pool=int(pool_text),
            options=frozenset(key for key, _ in others),
        )
