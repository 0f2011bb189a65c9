"""Answers requests as Keepa does, without a socket: keys, tokens, products, errors and the log of calls."""

import hashlib
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from keeper.simulator.answers import Freshness, count_offers, last_offers_fetch, make_product, make_unknown
from keeper.simulator.bucket import Balance, TokenBucket
from keeper.simulator.catalog import MARKETPLACES, Catalog, Product, is_asin
from keeper.simulator.clock import KEEPA_EPOCH_MINUTES, Anchors, SimulatedClock
from keeper.simulator.columns import NONE
from keeper.simulator.costs import (
    CATEGORY_SEARCH_COST,
    ENDPOINTS,
    SEARCH_RATING_CEILING,
    ProductFacts,
    count_product_cost,
    count_query_cost,
)
from keeper.simulator.deals import DealBoard
from keeper.simulator.faults import STATUS_FAULTS, Fault, FaultPlan
from keeper.simulator.finder import Finder, parse_query
from keeper.simulator.listings import LISTED, Listings
from keeper.simulator.lists import Shelves
from keeper.simulator.prices import DAY, derive, last_visit
from keeper.simulator.requests import (
    ParameterError,
    ProductRequest,
    parse_best_sellers_request,
    parse_category_request,
    parse_domain,
    parse_flag,
    parse_product_request,
    parse_search_request,
)
from keeper.simulator.selection import parse_deal_selection

# Not a secret: the key the simulator is used with where a client wants one. 64 characters, as Keepa's keys have.
DEFAULT_KEY = "simulator" + "0" * 55
KEY_LENGTH = 64
LOGGED_CALLS = 2_000
LOGGED_SELECTION = 1_000
REMEMBERED_FETCHES = 200_000
INVALID_PARAMETER = {"type": "invalidParameter", "message": "You used an invalid parameter for this API call.", "details": ""}
NOT_ENOUGH_TOKENS = {"type": "notEnoughTokens", "message": "You do not have enough tokens for this request.", "details": ""}
PAYMENT_REQUIRED = {"type": "paymentRequired", "message": "Your key has no paid access.", "details": ""}
SERVER_ERROR = {"type": "internalServerError", "message": "An unexpected error occurred.", "details": ""}


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back, before it is encoded.

    Attributes:
        status: HTTP status.
        body: JSON object.
        fault: What to do to the bytes; None for nothing.
    """

    status: int
    body: dict[str, Any]
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One logged request, without its key.

    Attributes:
        at_ms: Simulated Unix milliseconds.
        path: Path without query.
        parameters: Query without the key, a selection included; long ASIN lists as their number.
        status: HTTP status.
        tokens_consumed: Cost.
        tokens_left: Balance afterwards.
        fault: Kind of the fault; None for a good answer.
        seconds: Machine seconds spent.
    """

    at_ms: int
    path: str
    parameters: dict[str, str]
    status: int
    tokens_consumed: int
    tokens_left: int
    fault: str | None
    seconds: float


@dataclass(slots=True)
class _Fetches:
    """When this simulator's own clients had a product fetched, in Keepa minutes; 0 means never."""

    updated: int = 0
    offers: int = 0
    stock: int = 0


class SimulatedKeepa:
    """One Keepa: a clock, a catalog, the keys' buckets and the faults ordered. Thread-safe."""

    def __init__(
        self,
        catalog: Catalog,
        clock: SimulatedClock,
        *,
        refill_per_minute: int = 20,
        tokens: int | None = None,
        key: str | None = None,
        listed: int = LISTED,
    ) -> None:
        """Opens for business.

        Args:
            catalog: The products.
            clock: Simulated time.
            refill_per_minute: Plan of every key.
            tokens: Balance every key starts with; None means full.
            key: The only key accepted; None accepts every one of 64 characters.
            listed: How many of the products lists (deals, best sellers, finder, search) know.

        Raises:
            ValueError: `key` has not 64 characters, or the rate is not positive.
        """
        if key is not None and len(key) != KEY_LENGTH:
            raise ValueError(f"a key has {KEY_LENGTH} characters")
        if refill_per_minute < 1:
            raise ValueError("refill_per_minute must be at least 1")
        self.catalog = catalog
        self.clock = clock
        self.faults = FaultPlan()
        self._only_key = key
        self._lock = threading.Lock()
        self._refill_per_minute = refill_per_minute
        self._flow_reduction = 0.0
        self._start_tokens = tokens
        self._started_at = clock.now()
        self._buckets: dict[str, TokenBucket] = {}
        self._refused_keys: dict[str, int] = {}
        self._calls: deque[Call] = deque(maxlen=LOGGED_CALLS)
        self._counts: Counter[tuple[str, int]] = Counter()
        self._tokens_consumed = 0
        self._fetches: OrderedDict[tuple[int, str], _Fetches] = OrderedDict()
        self._listings = Listings(catalog, self._fetched_at, listed)
        self._board = DealBoard(self._listings)
        self._finder = Finder(self._listings)
        self._shelves = Shelves(self._listings)
        self._answerers: Mapping[str, Callable[[Mapping[str, str], TokenBucket, float, Fault | None], Answer]] = {
            "/token": self._answer_token,
            "/product": self._answer_product,
            "/deal": self._answer_deal,
            "/query": self._answer_query,
            "/bestsellers": self._answer_best_sellers,
            "/category": self._answer_category,
            "/search": self._answer_search,
        }
        self._bucket(key or DEFAULT_KEY)

    def answer(
        self, path: str, parameters: Mapping[str, str], wanted_fault: Fault | None = None, method: str = "GET", content: bytes = b""
    ) -> Answer:
        """Answers one request of the API and logs it.

        Args:
            path: Path of the URL.
            parameters: Query parameters.
            wanted_fault: The fault this one request asks for itself; None leaves it to the orders.
            method: HTTP method.
            content: Body of a POST: the selection.
        """
        began = time.perf_counter()
        path = path.rstrip("/") or "/"
        if method == "POST":
            # The body stands for the parameter; what is no UTF-8 is no JSON either.
            parameters = {**parameters, "selection": content.decode(errors="replace")}
        now = self.clock.now()
        fault = wanted_fault or self.faults.draw(path)
        key = parameters.get("key", "")
        answer = self._answer(method, path, parameters, key, now, fault)
        seconds = time.perf_counter() - began
        answer.body["processingTimeInMs"] = int(seconds * 1000)
        shown = {
            name: value[:LOGGED_SELECTION] if name == "selection" or len(value) <= 60 else f"{value.count(',') + 1} values"
            for name, value in parameters.items()
            if name != "key"
        }
        call = Call(
            at_ms=int(now * 1000),
            path=path,
            parameters=shown,
            status=answer.status,
            tokens_consumed=answer.body["tokensConsumed"],
            tokens_left=answer.body["tokensLeft"],
            fault=fault.kind if fault else None,
            seconds=round(seconds, 6),
        )
        with self._lock:
            self._calls.append(call)
            self._counts[path, answer.status] += 1
            self._tokens_consumed += call.tokens_consumed
        return answer

    def _answer(self, method: str, path: str, parameters: Mapping[str, str], key: str, now: float, fault: Fault | None) -> Answer:
        if not self._accepts(key) or (fault is not None and fault.kind == "invalid_key"):
            return Answer(400, _zero_envelope(now) | {"error": INVALID_PARAMETER}, fault)
        bucket = self._bucket(key)
        if fault is not None and fault.kind in STATUS_FAULTS:
            return _status_fault(fault, bucket.read(now), now)
        balance = bucket.read(now)
        endpoint = ENDPOINTS.get(path)
        if endpoint is None:
            return _refuse(404, _named_error("notFound", "Unknown path."), balance, now, fault)
        if method not in endpoint.methods:
            return _refuse(405, _named_error("methodNotAllowed", "Use another method."), balance, now, fault)
        if self._refused_keys.get(key) == 402:
            return _refuse(402, PAYMENT_REQUIRED, balance, now, fault)
        try:
            return self._answerers[path](parameters, bucket, now, fault)
        except ParameterError as error:
            return _refuse(error.status, INVALID_PARAMETER | {"details": error.name}, balance, now, fault)

    def _answer_token(self, _: Mapping[str, str], bucket: TokenBucket, now: float, fault: Fault | None) -> Answer:
        return Answer(200, _envelope(bucket.read(now), now, 0), fault)

    def _answer_product(self, parameters: Mapping[str, str], bucket: TokenBucket, now: float, fault: Fault | None) -> Answer:
        request = parse_product_request(parameters, now / 60 - KEEPA_EPOCH_MINUTES)
        balance = bucket.read(now)
        if not balance.admits:
            return _refuse(429, NOT_ENOUGH_TOKENS, balance, now, fault)
        products, cost = self._select_products(request, now, fault)
        # At high speed minutes have passed: Keepa charges, and says its time, when the answer is ready.
        now = self.clock.now()
        body = _envelope(bucket.take(cost, now), now, cost)
        if products is not None:
            body["products"] = products
        if fault is not None and fault.kind == "extra_fields":
            _add_unknown_fields(body)
        return Answer(200, body, fault)

    def _answer_deal(self, parameters: Mapping[str, str], bucket: TokenBucket, now: float, fault: Fault | None) -> Answer:
        selection = parse_deal_selection(parameters.get("selection"))
        balance = bucket.read(now)
        if not balance.admits:
            return _refuse(429, NOT_ENOUGH_TOKENS, balance, now, fault)
        page, is_cached = self._board.page(selection, now)
        deals = page.as_json()
        if fault is not None and fault.kind == "deal_holes":
            deals["dr"] = _make_holes(deals["dr"], selection.price_type)
        return self._pay(bucket, ENDPOINTS["/deal"].base_cost, {"deals": deals, "dealsCached": is_cached}, fault)

    def _answer_query(self, parameters: Mapping[str, str], bucket: TokenBucket, now: float, fault: Fault | None) -> Answer:
        domain = parse_domain(parameters)
        query = parse_query(parameters.get("selection"))
        stats = parse_flag(parameters, "stats")
        balance = bucket.read(now)
        if not balance.admits:
            return _refuse(429, NOT_ENOUGH_TOKENS, balance, now, fault)
        asins, matched, insights = self._finder.find(domain, query, now, stats=stats)
        payload: dict[str, Any] = {"asinList": asins, "totalResults": matched}
        if insights is not None:
            payload["searchInsights"] = insights
        return self._pay(bucket, count_query_cost(returned=len(asins), matched=matched, stats=stats), payload, fault)

    def _answer_best_sellers(self, parameters: Mapping[str, str], bucket: TokenBucket, now: float, fault: Fault | None) -> Answer:
        request = parse_best_sellers_request(parameters, now)
        balance = bucket.read(now)
        if not balance.admits:
            return _refuse(429, NOT_ENOUGH_TOKENS, balance, now, fault)
        # Lists are rebuilt about hourly.
        rebuilt = int(now / 60 - KEEPA_EPOCH_MINUTES) // 60 * 60
        asins = self._shelves.select_best_sellers(request, rebuilt)
        if not asins:
            return self._pay(bucket, 0, {"bestSellersList": None}, fault)
        found = {"domainId": request.domain, "lastUpdate": rebuilt, "categoryId": request.category, "asinList": asins}
        return self._pay(bucket, ENDPOINTS["/bestsellers"].base_cost, {"bestSellersList": found}, fault)

    def _answer_category(self, parameters: Mapping[str, str], bucket: TokenBucket, now: float, fault: Fault | None) -> Answer:
        request = parse_category_request(parameters)
        balance = bucket.read(now)
        if not balance.admits:
            return _refuse(429, NOT_ENOUGH_TOKENS, balance, now, fault)
        found = self._shelves.describe(request.domain, request.categories)
        payload: dict[str, Any] = {"categories": found}
        if request.parents:
            payload["categoryParents"] = self._shelves.describe_parents(request.domain, found)
        return self._pay(bucket, ENDPOINTS["/category"].base_cost, payload, fault)

    def _answer_search(self, parameters: Mapping[str, str], bucket: TokenBucket, now: float, fault: Fault | None) -> Answer:
        minutes = now / 60 - KEEPA_EPOCH_MINUTES
        request = parse_search_request(parameters, minutes)
        balance = bucket.read(now)
        if not balance.admits:
            return _refuse(429, NOT_ENOUGH_TOKENS, balance, now, fault)
        if not request.products:
            return self._pay(
                bucket, CATEGORY_SEARCH_COST, {"categories": self._shelves.find_categories(request.domain, request.words)}, fault
            )
        asins = self._shelves.find_products(request.domain, request.words)
        cost = ENDPOINTS["/search"].base_cost
        if request.asins_only:
            return self._pay(bucket, cost, {"asinList": asins}, fault)
        products, extra = [], 0
        for product in map(self.catalog.find_asin, asins):
            if product is not None:
                shown, paid = self._show(product, request.product, minutes)
                products.append(shown)
                extra += paid - ENDPOINTS["/product"].base_cost
        ceiling = SEARCH_RATING_CEILING if request.product.view.rating else 0
        if request.product.update_hours == 0:
            ceiling += len(products)
        return self._pay(bucket, cost + min(extra, ceiling), {"products": products}, fault)

    def _pay(self, bucket: TokenBucket, cost: int, payload: dict[str, Any], fault: Fault | None) -> Answer:
        now = self.clock.now()
        body = _envelope(bucket.take(cost, now), now, cost) | payload
        if fault is not None and fault.kind == "extra_fields":
            _add_unknown_fields(body)
        return Answer(200, body, fault)

    def _select_products(self, request: ProductRequest, now: float, fault: Fault | None) -> tuple[list[dict[str, Any]] | None, int]:
        minutes = now / 60 - KEEPA_EPOCH_MINUTES
        found: list[tuple[str, Product | None]] = []
        if request.codes:
            for code in request.codes:
                found += [(product.asin, product) for product in self.catalog.find_code(code)[: request.code_limit]]
        else:
            found = [(asin, self.catalog.find_asin(asin)) for asin in request.asins if is_asin(asin)]
            if not found:
                return None, 0
        if fault is not None and fault.kind == "missing_asin" and found:
            missing = fault.asin or found[0][0]
            found = [pair for pair in found if pair[0] != missing]
        products, total = [], 0
        for asin, product in found:
            if product is None or request.domain not in MARKETPLACES:
                if request.update_hours >= 0:
                    products.append(make_unknown(asin, request.domain, int(minutes)))
                    total += ENDPOINTS["/product"].base_cost
                continue
            answer, cost = self._show(product, request, minutes)
            products.append(answer)
            total += cost
        return products, total

    def _show(self, product: Product, request: ProductRequest, minutes: float) -> tuple[dict[str, Any], int]:
        now = int(minutes)
        domain = request.domain
        history = self.catalog.history(product, domain, now)
        traits = self.catalog.traits(product, domain)
        fetches = self._recall(domain, product.asin)
        # `min`: the clock may have been set back.
        updated = min(now, max(fetches.updated, last_visit(product.asin, domain, now), history.first))
        age = now - updated
        offers_fetched: int | None = None
        offers_updated = min(now, max(fetches.offers, last_offers_fetch(history, now)))
        if request.offers is not None:
            if request.update_hours >= 0 and (now - offers_updated >= request.update_hours * 60 or request.update_hours == 0):
                available = count_offers(history, now)
                offers_fetched = min(request.offers, available)
                updated = offers_updated = now
        elif request.update_hours >= 0 and age >= request.update_hours * 60:
            updated = now
        stale_rating = derive("rating age", product.asin, domain) % 8 == 0
        rating_updated = max(history.first, now - 20 * DAY - now % (5 * DAY)) if stale_rating else updated
        natural_stock = now - now % (10 * DAY) if derive("stock age", product.asin, domain) % 2 else now - 8 * DAY - now % DAY
        stock_updated = min(now, max(fetches.stock, natural_stock))
        facts = ProductFacts(
            age_minutes=age,
            rating_age_minutes=now - rating_updated,
            stock_age_minutes=now - stock_updated,
            has_parent=product.parent is not None,
            offers_fetched=offers_fetched,
        )
        cost = count_product_cost(
            facts,
            offers=request.offers,
            buybox=request.view.buybox,
            rating=request.view.rating,
            stock=request.view.stock,
            update_hours=request.update_hours,
            historical_variations=request.view.historical_variations,
        )
        if request.view.stock and offers_fetched:
            stock_updated = now
        self._remember(domain, product.asin, updated, offers_updated if offers_fetched is not None else 0, stock_updated, fetches)
        fresh = Freshness(minutes, updated, rating_updated, stock_updated, offers_updated)
        return make_product(product, traits, history, request.view, fresh), cost

    def _recall(self, domain: int, asin: str) -> _Fetches:
        with self._lock:
            found = self._fetches.get((domain, asin))
            return _Fetches() if found is None else replace(found)

    def _fetched_at(self, domain: int, asin: str) -> int:
        # No lock: one look-up, and what is found only ever grows.
        found = self._fetches.get((domain, asin))
        return 0 if found is None else found.updated

    def _remember(self, domain: int, asin: str, updated: int, offers: int, stock: int, before: _Fetches) -> None:
        if updated <= before.updated and offers <= before.offers and stock <= before.stock:
            return
        with self._lock:
            kept = self._fetches.setdefault((domain, asin), _Fetches())
            kept.updated, kept.offers, kept.stock = max(kept.updated, updated), max(kept.offers, offers), max(kept.stock, stock)
            self._fetches.move_to_end((domain, asin))
            if len(self._fetches) > REMEMBERED_FETCHES:
                self._fetches.popitem(last=False)

    def _accepts(self, key: str) -> bool:
        if self._refused_keys.get(key) == 400:
            return False
        return key == self._only_key if self._only_key is not None else len(key) == KEY_LENGTH

    def _bucket(self, key: str) -> TokenBucket:
        with self._lock:
            bucket = self._buckets.get(key)
            if bucket is None:
                bucket = TokenBucket(self._refill_per_minute, now=self.clock.now(), tokens=self._start_tokens)
                if self._flow_reduction:
                    bucket.change(self.clock.now(), flow_reduction=self._flow_reduction)
                self._buckets[key] = bucket
            return bucket

    def _chosen(self, key: str | None) -> list[TokenBucket]:
        if key is not None:
            return [self._bucket(key)]
        with self._lock:
            return list(self._buckets.values())

    def control(self, method: str, name: str, wish: Mapping[str, Any]) -> Answer:
        """Answers one request to the control endpoints, `/_simulator/<name>`.

        Raises:
            ValueError: A value is missing, of the wrong type or out of range.
            LookupError: There is no such endpoint.
        """
        now = self.clock.now()
        key = _text(wish, "key")
        if (method, name) == ("GET", "state"):
            pass
        elif (method, name) == ("GET", "requests"):
            return Answer(200, self.describe_calls(int(_number(wish, "last", 100))))
        elif (method, name) == ("GET", "products"):
            start = max(0, int(_number(wish, "start", 0)))
            stop = min(start + max(0, int(_number(wish, "count", 100))), self.catalog.size, start + 10_000)
            return Answer(200, {"total": self.catalog.size, "asins": self.catalog.asins(start, stop)})
        elif (method, name) == ("POST", "jump"):
            self.clock.jump(_number(wish, "seconds"))
        elif (method, name) == ("POST", "speed"):
            self.clock.run_at(_number(wish, "speed"))
        elif (method, name) == ("POST", "clock"):
            self.clock.set_anchors(Anchors(_number(wish, "anchor_machine"), _number(wish, "anchor_simulated"), _number(wish, "speed")))
            for bucket in self._chosen(None):
                bucket.set_back(self.clock.now())
        elif (method, name) == ("POST", "tokens"):
            for bucket in self._chosen(key):
                bucket.put(int(_number(wish, "tokens")), now)
        elif (method, name) == ("POST", "spend"):
            for bucket in self._chosen(key):
                bucket.take(int(_number(wish, "tokens", 0)), now)
                if "per_minute" in wish:
                    bucket.change(now, foreign_per_minute=_number(wish, "per_minute"))
        elif (method, name) == ("POST", "rate"):
            self._change_rate(wish, key, now)
        elif (method, name) == ("POST", "key"):
            self._judge_key(wish, key)
        elif (method, name) == ("POST", "faults"):
            self._order_fault(wish)
        elif (method, name) == ("POST", "forget"):
            with self._lock:
                self._calls.clear()
                self._counts.clear()
                self._tokens_consumed = 0
        else:
            raise LookupError(name)
        return Answer(200, self.describe())

    def _change_rate(self, wish: Mapping[str, Any], key: str | None, now: float) -> None:
        rate = int(_number(wish, "refill_per_minute")) if "refill_per_minute" in wish else None
        reduction = _number(wish, "token_flow_reduction") if "token_flow_reduction" in wish else None
        if rate is not None and rate < 1:
            raise ValueError("refill_per_minute must be at least 1")
        if reduction is not None and reduction < 0:
            raise ValueError("token_flow_reduction must not be negative")
        for bucket in self._chosen(key):
            bucket.change(now, refill_per_minute=rate, flow_reduction=reduction)
        if key is None:
            self._refill_per_minute = rate if rate is not None else self._refill_per_minute
            self._flow_reduction = reduction if reduction is not None else self._flow_reduction

    def _judge_key(self, wish: Mapping[str, Any], key: str | None) -> None:
        status = _text(wish, "status")
        if status not in ("valid", "invalid", "unpaid"):
            raise ValueError("status must be valid, invalid or unpaid")
        judged = key or self._only_key or DEFAULT_KEY
        with self._lock:
            self._refused_keys.pop(judged, None)
            if status != "valid":
                self._refused_keys[judged] = 400 if status == "invalid" else 402

    def _order_fault(self, wish: Mapping[str, Any]) -> None:
        if wish.get("clear"):
            self.faults.clear()
            return
        fault = Fault(str(wish.get("kind", "")), _number(wish, "seconds", 1.0), _text(wish, "asin"))
        # One request, unless a number of requests or a share of all is asked for.
        count = int(_number(wish, "next")) if "next" in wish else (None if "share" in wish else 1)
        self.faults.order(
            fault, count=count, share=_number(wish, "share", 1.0), seed=int(_number(wish, "seed", 0)), path=_text(wish, "path")
        )

    def describe(self) -> dict[str, Any]:
        """Returns the state as JSON values; keys appear as the first eight digits of their SHA-256."""
        now = self.clock.now()
        anchors = self.clock.anchors
        with self._lock:
            buckets = dict(self._buckets)
        return {
            "now_ms": int(now * 1000),
            "anchor_machine": anchors.machine,
            "anchor_simulated": anchors.simulated,
            "speed": anchors.speed,
            "products": self.catalog.size,
            "seed": self.catalog.seed,
            "keys": {
                hashlib.sha256(key.encode()).hexdigest()[:8]: asdict(bucket.read(now)) | {"capacity": bucket.capacity}
                for key, bucket in buckets.items()
            },
            "faults": self.faults.list_orders(),
            "cached_entries": self.catalog.cached_entries,
        }

    def describe_calls(self, last: int) -> dict[str, Any]:
        """Returns the counts of all calls since the start (or since `forget`) and the last ones, oldest first."""
        with self._lock:
            calls = list(self._calls)[-last:] if last > 0 else []
            by_status: Counter[str] = Counter()
            by_path: Counter[str] = Counter()
            for (path, status), count in self._counts.items():
                by_status[str(status)] += count
                by_path[path] += count
            return {
                "total": sum(by_status.values()),
                "by_status": dict(by_status),
                "by_path": dict(by_path),
                "tokens_consumed": self._tokens_consumed,
                "calls": [asdict(call) for call in calls],
            }


def _envelope(balance: Balance, now: float, cost: int) -> dict[str, Any]:
    return {
        "timestamp": int(now * 1000),
        "tokensLeft": balance.tokens_left,
        "refillIn": balance.refill_in_ms,
        "refillRate": balance.refill_per_minute,
        "tokenFlowReduction": balance.flow_reduction,
        "tokensConsumed": cost,
        "processingTimeInMs": 0,
    }


def _zero_envelope(now: float) -> dict[str, Any]:
    return _envelope(Balance(0, 0, 0, 0.0), now, 0)


def _refuse(status: int, error: dict[str, str], balance: Balance, now: float, fault: Fault | None) -> Answer:
    return Answer(status, _envelope(balance, now, 0) | {"error": error}, fault)


def _status_fault(fault: Fault, balance: Balance, now: float) -> Answer:
    errors = {
        "429": NOT_ENOUGH_TOKENS,
        "402": PAYMENT_REQUIRED,
        "400": INVALID_PARAMETER,
        "in_body_error": INVALID_PARAMETER,
    }
    body = _envelope(balance, now, 0) | {"error": errors.get(fault.kind, SERVER_ERROR)}
    return Answer(STATUS_FAULTS[fault.kind], body, fault)


def _named_error(kind: str, message: str) -> dict[str, str]:
    return {"type": kind, "message": message, "details": ""}


def _add_unknown_fields(body: dict[str, Any]) -> None:
    strange = {"aField": [1, {"of": None}], "andAnother": "unknown"}
    body["simulatedUnknown"] = strange
    for product in body.get("products", ()):
        product["simulatedUnknown"] = strange
        if product.get("csv"):
            # The length of these arrays may grow without notice.
            product["csv"] = [*product["csv"], None, [1, 2]]
        if product.get("stats"):
            product["stats"]["simulatedUnknown"] = strange
    if "deals" in body:
        body["deals"]["dr"] = [_add_unknown_deal_fields(deal) for deal in body["deals"]["dr"]]
        body["deals"]["simulatedUnknown"] = strange


def _add_unknown_deal_fields(deal: dict[str, Any]) -> dict[str, Any]:
    longer: dict[str, Any] = {name: [*deal[name], NONE] for name in ("current", "currentSince", "deltaLast", "backInStock")}
    longer |= {name: [[*row, NONE] for row in deal[name]] for name in ("avg", "delta", "deltaPercent")}
    return deal | longer | {"simulatedUnknown": {"of": None}}


def _make_holes(deals: list[dict[str, Any]], price_type: int) -> list[dict[str, Any] | None]:
    """Returns a page whose first rows (as many as there are) are broken; the rows given stay whole."""

    def with_price(deal: dict[str, Any], value: int) -> dict[str, Any]:
        return deal | {"current": [value if each == price_type else old for each, old in enumerate(deal["current"])]}

    def without(deal: dict[str, Any], *names: str) -> dict[str, Any]:
        return {name: value for name, value in deal.items() if name not in names}

    breakers: tuple[Callable[[dict[str, Any]], dict[str, Any] | None], ...] = (
        lambda _: None,
        lambda deal: without(deal, "current", "avg"),
        lambda deal: without(deal, "title", "image", "categories", "rootCat", "salesRankDrops90"),
        _add_unknown_deal_fields,
        lambda deal: with_price(deal, -2),
        lambda deal: with_price(deal, 0),
        lambda deal: deal | {"title": f"<b>{deal['title']}</b> &amp; &quot;more&quot; <script>alert(1)</script>"},
        lambda deal: without(deal, "asin"),
        lambda deal: deal | {"current": None, "image": None, "categories": None},
    )
    return [breakers[place](deal) if place < len(breakers) else deal for place, deal in enumerate(deals)]


def _number(wish: Mapping[str, Any], name: str, default: float | None = None) -> float:
    value = wish.get(name, default)
    if isinstance(value, str):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) > 1e15:
        raise ValueError(f"{name} must be a number")
    return value


def _text(wish: Mapping[str, Any], name: str) -> str | None:
    value = wish.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} must be a text")
    return value
