"""The verb that asks who sells what is worth buying: `offers=20`, only for opportunities that survive the filters, of the scan's share."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final

from sqlalchemy import Engine

from keeper.check import Checked, give_back, note_failure
from keeper.domain.errors import KeeperError
from keeper.domain.marketplace import Marketplace
from keeper.domain.price_type import PriceType
from keeper.plan import PlannedRequest
from keeper.postgres import installation, offers
from keeper.postgres.offers import DueOffers
from keeper.scan import ScanSettings, ShareSpent, share_of
from keeper.tokens import TokensUnavailable

# Who sells a product is asked again after so long.
AGAIN: Final = timedelta(hours=24)
# Up to 12 tokens each: what the share does not reach waits for the next run, the best score first.
MOST_PRODUCTS: Final = 60
_AT_ONCE: Final = 10
# Of what is left of the share, so that prices are looked at, too.
PART_OF_SHARE: Final = 4


@dataclass(slots=True)
class CompetitorsSeen:
    """What one run did.

    Attributes:
        troubles: what failed, each once; a share that is spent is none.
    """

    products: int = 0
    tokens: int = 0
    troubles: dict[str, None] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """For the list of runs."""
        return f"sellers of {self.products} products seen for {self.tokens} tokens"


def with_offers(settings: ScanSettings) -> ScanSettings:
    """The same share of the tokens, for requests that ask for sellers."""
    return replace(settings, price_type=PriceType.NEW_FBA)


def see_competitors(
    engine: Engine,
    *,
    settings: ScanSettings,
    least_roi_pct: float,
    plan: Callable[[Sequence[str], Marketplace], PlannedRequest | None],
    check: Callable[[PlannedRequest], Checked],
    most: int = MOST_PRODUCTS,
) -> CompetitorsSeen:
    """Ask for the sellers of the best opportunities in the store they are sold in, for a quarter of what is left of the share.

    Args:
        plan: claim and pay for one request; raises ShareSpent where the share does not go so far.
        check: send it and record the answer.
    """
    seen = CompetitorsSeen()
    with engine.begin() as connection:
        now = installation.select_now(connection)
        share = share_of(connection, share_pct=settings.share_pct, now=now)
        due = offers.select_due_offers(
            connection,
            least_roi_pct=least_roi_pct,
            checked_before=now - AGAIN,
            marketplaces=list(settings.stores),
            limit=min(most, share.left // PART_OF_SHARE // with_offers(settings).tokens_each),
        )
    for marketplace, asins in _batches(due):
        try:
            request = plan(asins, marketplace)
        except (ShareSpent, TokensUnavailable):
            break
        if request is None:
            continue
        try:
            checked = check(request)
        except KeeperError as error:
            note_failure(engine, request, str(error), now=now)
            seen.troubles[f"sellers in {marketplace}: {error}"] = None
            continue
        except BaseException:
            give_back(engine, request)
            raise
        seen.products += checked.checked
        seen.tokens += checked.tokens
    return seen


def _batches(due: Sequence[DueOffers]) -> list[tuple[Marketplace, list[str]]]:
    """Requests of one store each, that with the best product first."""
    batches: list[tuple[Marketplace, list[str]]] = []
    filling: dict[str, list[str]] = {}
    for one in due:
        asins = filling.get(one.marketplace)
        if asins is None or len(asins) == _AT_ONCE:
            asins = filling[one.marketplace] = []
            batches.append((Marketplace(one.marketplace), asins))
        asins.append(one.asin)
    return batches
