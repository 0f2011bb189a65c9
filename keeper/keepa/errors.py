"""What can go wrong with a call to Keepa.

KeeperError
├── RequestInvalid              refused here, before anything was sent or paid (also a ValueError)
└── KeepaError                  a call was made, or tried
    ├── RequestRejected         400, 404, 405, another 4xx, or an `error` without a payload in a 200
    ├── KeyRejected             Keepa does not know the key: 401, 403, or an `error` with every token field 0
    │   └── PaymentRequired     402: the key has no paid access
    ├── OutOfTokens             429: the bucket is empty                           (TransientError)
    ├── ServerDown              5xx, no connection, time out                       (TransientError)
    └── AnswerUnreadable        cut off, broken gzip, no JSON, not Keepa's shape   (TransientError)

No text, argument or chained exception here holds the key: they are raised outside of the handlers of httpx's exceptions,
and what Keepa says is redacted before it is quoted.
"""

from typing import Self

from keeper.domain.errors import KeeperError, TransientError
from keeper.domain.marketplace import Marketplace
from keeper.domain.tokens import KeepaCall, TokenStatus
from keeper.keepa.answer import keepa_call

_LONGEST_CALL_ERROR = 300


class RequestInvalid(KeeperError, ValueError):
    """A request Keepa could only refuse, so it is not sent."""


class KeepaError(KeeperError):
    """A call to Keepa that gave no usable answer.

    Attributes:
        endpoint: "product", "token".
        marketplace: None for calls that have none.
        asin_count: how many ASINs were asked.
        status_code: None where no status line came.
        tokens: the bucket after the call, where Keepa said so; None means unknown, not empty.
        elapsed_seconds: from sending to the failure.
        may_have_cost: whether Keepa may have run and charged the request although `tokens` is None.
    """

    def __init__(
        self,
        message: str,
        *,
        endpoint: str = "",
        marketplace: Marketplace | None = None,
        asin_count: int = 0,
        status_code: int | None = None,
        tokens: TokenStatus | None = None,
        elapsed_seconds: float = 0.0,
        may_have_cost: bool = False,
    ) -> None:
        super().__init__(message)
        self.endpoint = endpoint
        self.marketplace = marketplace
        self.asin_count = asin_count
        self.status_code = status_code
        self.tokens = tokens
        self.elapsed_seconds = elapsed_seconds
        self.may_have_cost = may_have_cost

    @property
    def call(self) -> KeepaCall:
        """The row this call leaves behind."""
        return keepa_call(
            operation=self.endpoint,
            marketplace=self.marketplace,
            asin_count=self.asin_count,
            tokens=self.tokens,
            elapsed_seconds=self.elapsed_seconds,
            error=f"{type(self).__name__}: {self}"[:_LONGEST_CALL_ERROR],
        )

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (type(self), str(self), dict(self.__dict__))

    @classmethod
    def _restored(cls, message: str, facts: dict[str, object]) -> Self:
        error = cls.__new__(cls, message)
        error.__dict__.update(facts)
        return error


def _restore(cls: type[KeepaError], message: str, facts: dict[str, object]) -> KeepaError:
    return cls._restored(message, facts)


class RequestRejected(KeepaError):
    """Keepa will not run this request, now or later."""


class KeyRejected(KeepaError):
    """Keepa does not accept the key. Says nothing of any bucket: `tokens` is None."""


class PaymentRequired(KeyRejected):
    """The key has no paid access."""


class OutOfTokens(KeepaError, TransientError):
    """The bucket is empty; nothing was run and nothing charged.

    Attributes:
        refill_in_seconds: until the next step of the refill; one minute where Keepa did not say.
    """

    @property
    def refill_in_seconds(self) -> float:
        return self.tokens.refill_in_seconds if self.tokens is not None else 60.0


class ServerDown(KeepaError, TransientError):
    """Keepa failed, was not reachable, or took too long."""


class AnswerUnreadable(KeepaError, TransientError):
    """Something came back, but not a whole answer of Keepa's shape."""
