"""Answers what has no prices in it: the tree of categories, best sellers and the search for words."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from keeper.simulator.catalog import MARKETPLACES, Marketplace
from keeper.simulator.columns import NONE
from keeper.simulator.listings import Listing, Listings, measure_average
from keeper.simulator.prices import DAY, SALES
from keeper.simulator.requests import BestSellersRequest

MAX_FOUND_PRODUCTS = 20
MAX_FOUND_CATEGORIES = 50
# Windows of a rank's average are as long as what lists keep.
_LONGEST = 90
# Roots without a product here: who asks for their best sellers gets none and pays nothing. Those of Germany are Amazon's own.
_OTHER_ROOTS: Mapping[int, tuple[tuple[int, str], ...]] = {
    1: ((11_091_801, "Musical Instruments"), (165_793_011, "Toys & Games")),
    2: ((340_837_031, "Musical Instruments & DJ Equipment"), (468_292, "Toys & Games")),
    3: ((340_849_031, "Musikinstrumente & DJ-Equipment"), (12_950_651, "Spielzeug")),
    4: ((340_862_031, "Instruments de musique et Sono"), (322_086_011, "Jeux et Jouets")),
    8: ((3_628_629_031, "Strumenti musicali e DJ"), (523_997_031, "Giochi e giocattoli")),
    9: ((3_628_866_031, "Instrumentos musicales"), (599_385_031, "Juguetes y juegos")),
}


class CategoryTree:
    """The categories of one marketplace, with what is known of the products in them."""

    def __init__(self, place: Marketplace, listings: Sequence[Listing]) -> None:
        """Counts the products of each category."""
        keyboards, accessories, middle, root = place.path[-1], place.accessories, place.input_devices, place.root
        # The category above the accessories and the keyboards is the same in every marketplace.
        self.above: dict[int, int] = {root[0]: 0, middle[0]: root[0], keyboards[0]: middle[0], accessories[0]: middle[0]}
        self.names: dict[int, str] = dict((root, middle, keyboards, accessories))
        for other in _OTHER_ROOTS[place.domain]:
            self.above[other[0]], self.names[other[0]] = 0, other[1]
        self._domain = place.domain
        self._listings = listings

    @property
    def roots(self) -> list[int]:
        """Ids of the roots."""
        return [each for each, above in self.above.items() if above == 0]

    def lineage(self, category: int) -> list[int]:
        """Returns the categories above one, the nearest first."""
        above = []
        while category := self.above[category]:
            above.append(category)
        return above

    def listed_in(self, category: int) -> list[Listing]:
        """Returns the products in a category or below it."""
        below = {category, *(each for each in self.above if category in self.lineage(each))}
        return [listing for listing in self._listings if listing.root in self.above and below & {listing.root, *listing.categories}]

    def describe(self, category: int) -> dict[str, Any]:
        """Returns a category as Keepa writes it (api_backend, structs/Category.java)."""
        listings = self.listed_in(category)
        ranks = [int(each.traits.rank_level) for each in listings if each.traits.rank_level is not None]
        return {
            "domainId": self._domain,
            "catId": category,
            "name": self.names[category],
            "children": [each for each, above in self.above.items() if above == category] or None,
            "parent": self.above[category],
            "highestRank": min(ranks, default=NONE),
            "lowestRank": max(ranks, default=NONE),
            "productCount": len(listings),
            "isBrowseNode": True,
            "websiteDisplayGroup": None,
            **summarise(listings),
        }


def summarise(listings: Sequence[Listing]) -> dict[str, Any]:
    """Returns the means over some products that categories and the finder's insights show; -1 without products."""
    traits = [listing.traits for listing in listings]

    def mean(values: Iterable[float]) -> int:
        numbers = [*values]
        return int(sum(numbers) / len(numbers)) if numbers else NONE

    price = mean(each.level_minor for each in traits)
    return {
        "avgBuyBox": price,
        "avgBuyBox90": price,
        "avgBuyBox365": price,
        "avgBuyBoxDeviation": NONE if price < 0 else price // 20,
        "avgReviewCount": mean(each.reviews_per_day * 1_000 for each in traits if each.rating),
        "avgRating": mean(each.rating for each in traits if each.rating),
        "isFBAPercent": float(mean(100 * (each.fba > 0) for each in traits)),
        "soldByAmazonPercent": float(mean(100 * each.amazon_sells for each in traits)),
        "hasCouponPercent": 0.0 if traits else -1.0,
        "avgOfferCountNew": float(mean(each.amazon_sells + each.fba + each.fbm for each in traits)),
        "avgOfferCountUsed": float(mean(each.has_used + each.has_warehouse for each in traits)),
        "sellerCount": len({seller for each in traits for seller in each.seller_ids}),
        "brandCount": len({listing.product.brand for listing in listings}),
    }


class Shelves:
    """Answers `/category`, `/bestsellers` and `/search`. Thread-safe."""

    def __init__(self, listings: Listings) -> None:
        """Builds nothing yet."""
        self._listings = listings
        self._trees: dict[int, CategoryTree] = {}

    def describe(self, domain: int, categories: Sequence[int]) -> dict[str, dict[str, Any]]:
        """Returns the categories asked for, 0 standing for every root, by id; what does not exist is left out."""
        with self._listings.lock:
            tree = self._tree(domain)
            if tree is None:
                return {}
            wanted = tree.roots if 0 in categories else [each for each in categories if each in tree.above]
            return {str(each): tree.describe(each) for each in wanted}

    def describe_parents(self, domain: int, categories: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Returns every category above some, by id."""
        with self._listings.lock:
            tree = self._tree(domain)
            if tree is None:
                return {}
            above = dict.fromkeys(parent for each in categories for parent in tree.lineage(int(each)))
            return {str(each): tree.describe(each) for each in above}

    def find_categories(self, domain: int, words: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Returns the categories whose name holds every word, by id."""
        with self._listings.lock:
            tree = self._tree(domain)
            if tree is None:
                return {}
            found = [each for each, name in tree.names.items() if all(word in name.lower() for word in words)]
            return {str(each): tree.describe(each) for each in found[:MAX_FOUND_CATEGORIES]}

    def find_products(self, domain: int, words: Sequence[str]) -> list[str]:
        """Returns the ASINs of the products whose title or brand holds every word, the best known first."""
        with self._listings.lock:
            found = [
                listing
                for listing in self._listings.of(domain)
                if all(word in listing.title or word in listing.product.brand.lower() for word in words)
            ]
            found.sort(key=lambda listing: (listing.traits.rank_level or 1e12, listing.product.number))
            return [listing.product.asin for listing in found[:MAX_FOUND_PRODUCTS]]

    def select_best_sellers(self, request: BestSellersRequest, hour: int) -> list[str]:
        """Returns the ASINs of a category in order of their sales rank; empty where there is no list.

        Args:
            request: What is asked for.
            hour: Keepa minute at which lists were last rebuilt.
        """
        with self._listings.lock:
            tree = self._tree(request.domain)
            if tree is None or request.category is None or request.category not in tree.above:
                return []
            ranked = []
            for listing in tree.listed_in(request.category):
                if request.days:
                    start = [float(hour - min(request.days, _LONGEST) * DAY)]
                    rank = measure_average(listing.column(SALES, hour), hour, start, hour)[0]
                else:
                    rank = listing.value(SALES, hour)
                if rank > 0:
                    ranked.append((rank, listing.product.number, listing))
            ranked.sort(key=lambda entry: entry[:2])
            seen: set[str] = set()
            asins = []
            for _, _, listing in ranked:
                family = listing.product.parent
                if family is None or request.variations or family not in seen:
                    asins.append(listing.product.asin)
                if family is not None:
                    seen.add(family)
            return asins

    def _tree(self, domain: int) -> CategoryTree | None:
        place = MARKETPLACES.get(domain)
        if place is not None and domain not in self._trees:
            self._trees[domain] = CategoryTree(place, self._listings.of(domain))
        return self._trees.get(domain)
