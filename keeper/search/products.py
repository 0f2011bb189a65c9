"""Product documents: the index `products`, one whole document per ASIN."""

from collections.abc import Iterable, Mapping

from keeper.domain.delivery import SinkDown
from keeper.search.bulk import BulkWriter, write_documents
from keeper.search.connection import SearchConnection, SearchDown, SearchRefused, open_client, probe
from keeper.search.indices import make_missing
from keeper.search.mapping import Alias, alias_name


class ProductWriter:
    """Writes product documents. Safe to share between threads. Opening it asks nothing of the network.

    Args:
        index: full name of one index, for a rebuild; None means the alias.

    Raises:
        SearchRefused: settings that cannot work.
    """

    def __init__(self, connection: SearchConnection, *, index: str | None = None) -> None:
        self._connection = connection
        self._client = open_client(connection)
        self._target = index or alias_name(connection, Alias.PRODUCTS)
        self._writer = BulkWriter(self._client, connection, requires_alias=index is None)
        self._is_ensured = index is not None  # a rebuild has just made it

    def connect(self) -> None:
        """One small question; the first time and after each outage also makes what is missing.

        Raises:
            SinkDown: nobody answers, or what answers cannot be used.
        """
        try:
            probe(self._client, self._connection)
            if not self._is_ensured:
                make_missing(self._client, self._connection)
                self._is_ensured = True
        except (SearchDown, SearchRefused) as error:
            raise SinkDown(str(error)) from error

    def write(self, documents: Iterable[tuple[str, int, bytes]]) -> Mapping[str, str]:
        """Write (ASIN, version, body). Returns why a document can never be written, by ASIN.

        Raises:
            SinkDown: nobody answers, or some were not taken now; writing all again is harmless.
        """
        if not self._is_ensured:
            self.connect()
        offered = list(documents)
        try:
            answers = write_documents(self._writer, self._target, offered)
        except (SearchDown, SearchRefused) as error:
            self._is_ensured = False
            raise SinkDown(str(error)) from error
        for answer in answers:
            if answer.refusal is not None and not answer.is_final:
                raise SinkDown(f"{self._target}: {answer.refusal}")
        return {asin: answer.refusal for (asin, _, _), answer in zip(offered, answers, strict=True) if answer.refusal is not None}

    def close(self) -> None:
        """End the connections."""
        self._client.close()
