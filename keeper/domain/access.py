"""What users and their API keys may do."""

from enum import StrEnum


class Role(StrEnum):
    """What a user may do: an admin also what concerns everybody."""

    USER = "user"
    ADMIN = "admin"

    @property
    def widest(self) -> "Scope":
        """The scope that a key of such a user may have."""
        return Scope.ADMIN if self is Role.ADMIN else Scope.WRITE


class Scope(StrEnum):
    """What an API key may do: each of the first three also what those before it may.

    FEED is for a token in the path of a feed, which reads that feed and nothing else.
    """

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    FEED = "feed"

    @property
    def includes(self) -> frozenset["Scope"]:
        """What a key of this scope may do."""
        if self is Scope.FEED:
            return frozenset({Scope.FEED})
        ranks = (Scope.READ, Scope.WRITE, Scope.ADMIN)
        return frozenset(ranks[: ranks.index(self) + 1])

    def within(self, role: Role) -> "Scope":
        """What is left of it to a user of this role, who may have had another one when the key was made."""
        return role.widest if self is Scope.ADMIN else self
