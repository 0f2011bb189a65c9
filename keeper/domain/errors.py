"""The root of Keeper's errors.

KeeperError
├── TransientError      may succeed when tried again later
└── (everything else)   will not succeed until somebody changes something

Subclasses live beside the code that raises them and carry their facts as attributes.
"""


class KeeperError(Exception):
    """Something Keeper can name. Its text says what is wrong and what to do."""


class TransientError(KeeperError):
    """May succeed when tried again later, with nothing changed."""
