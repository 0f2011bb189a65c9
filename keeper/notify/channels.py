"""Channel URLs: which are allowed, how they are shown, and how they are kept encrypted."""

import hashlib
import os
import re
import secrets
from collections.abc import Collection, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from keeper.domain.errors import KeeperError
from keeper.notify.apprise_log import captured_log
from keeper.notify.plugins import MailChannel, Plugin, open_plugin

# Generic schemes (json, xml, form, http) stay off: they post to any address, also inside the network Keeper runs in.
DEFAULT_SCHEMES = ("mailto", "mailtos", "tgram", "discord", "ntfy", "ntfys", "slack")

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://.", re.IGNORECASE)
# Apprise drops what follows a bare #, and with it a recipient, without a word.
_NOT_IN_A_URL = re.compile(r"[\s\x00-\x1f\x7f#]")
_SECOND_URL = re.compile(r"[,;|][a-z][a-z0-9+.-]*://", re.IGNORECASE)

# Accepted because they do no harm, and set by Keeper itself at each send.
_COMMON_OPTIONS = frozenset({"format", "overflow", "emojis", "tz", "cto", "rto"})
_OPTIONS = {
    "mail": frozenset({"to", "from", "name", "smtp", "mode", "reply", "user", "pass", "password", "port"}),
    "tgram": frozenset({"to", "topic", "thread", "silent", "preview"}),
    "discord": frozenset({"avatar", "avatar_url", "thread", "flags"}),
    "ntfy": frozenset({"to", "mode", "auth", "token", "user", "pass", "password", "port", "priority", "tags", "xtags", "click"}),
    "slack": frozenset({"to", "token", "mode", "blocks", "footer", "timestamp"}),
}
_SERVICES = {"mailto": "mail", "mailtos": "mail", "ntfys": "ntfy"}
# For schemes an administrator has added: options that read files, fetch addresses, skip checks or make a failure look like a success.
_NEVER = frozenset(
    {
        "template",
        "attach",
        "pgp",
        "pgppub",
        "pgpkey",
        "pgpprv",
        "wkd",
        "verify",
        "redirect",
        "optional",
        "retry",
        "wait",
        "store",
        "cc",
        "bcc",
    }
)
_REASONS = {
    "cc": "one channel is one recipient, so that a repeat reaches nobody twice",
    "bcc": "one channel is one recipient, so that a repeat reaches nobody twice",
    "retry": "Keeper repeats by itself",
    "wait": "Keeper repeats by itself",
    "optional": "a failure must not look like a success",
    "verify": "certificates are always checked",
    "redirect": "redirects are never followed",
}


class ChannelUrlRefused(KeeperError):
    """A channel URL that Keeper does not take. Its text never holds the URL.

    Attributes:
        scheme: as written, lower case; None when there is none.
    """

    def __init__(self, text: str, scheme: str | None) -> None:
        super().__init__(text)
        self.scheme = scheme


class ChannelKeyWrong(KeeperError):
    """A stored channel that none of the given keys opens, or a key that is none."""


def check_channel_url(url: str, allowed_schemes: Collection[str] = DEFAULT_SCHEMES) -> str:
    """The URL, stripped, when it is one that Keeper sends to: an allowed scheme, exactly one recipient, no unsafe option.

    Asks nothing of the network.

    Raises:
        ChannelUrlRefused: with the reason and what to do; never with a secret part of the URL.
    """
    url = url.strip()
    scheme = scheme_of(url)
    allowed = ", ".join(sorted(allowed_schemes))
    if scheme is None:
        raise ChannelUrlRefused(f"a channel is a URL like mailtos://user:password@example.org; allowed schemes: {allowed}", None)
    if scheme not in allowed_schemes:
        raise ChannelUrlRefused(f"the scheme {scheme} is not allowed; allowed schemes: {allowed}", scheme)
    if _NOT_IN_A_URL.search(url) or _SECOND_URL.search(url):
        raise ChannelUrlRefused(
            f"the {scheme} URL holds a space, a # or a second URL; add one channel per URL and write special characters as %XX (# is %23)",
            scheme,
        )
    # Before Apprise sees the URL: it would already look for the files some options name.
    _check_options(url, scheme)
    opened = _open(url, scheme)
    if opened is None:
        raise ChannelUrlRefused(
            f"the {scheme} URL cannot be read; compare it with Apprise's page on {scheme}, special characters as %XX", scheme
        )
    plugin, warnings = opened
    _check_recipient(plugin, warnings, scheme)
    if isinstance(plugin, MailChannel) and plugin.sends_password_in_clear:
        raise ChannelUrlRefused(
            f"the {scheme} URL would send the password unencrypted; write mailtos:// or add ?mode=starttls (or ?mode=ssl)", scheme
        )
    return url


def mask_url(url: str) -> str:
    """The URL for display: its scheme and what helps a person to recognise it, without passwords, tokens or secret topics. Never raises."""
    scheme = scheme_of(url.strip())
    if scheme is None:
        return "…"
    opened = _open(url.strip(), scheme) if scheme in DEFAULT_SCHEMES else None
    hint = "" if opened is None else _hint(opened[0], scheme)
    return f"{scheme}://{hint or '…'}"


def scheme_of(url: str) -> str | None:
    """The scheme in lower case, None when there is none."""
    found = _SCHEME.match(url)
    return found.group(1).lower() if found else None


def mask_secrets(text: str, url: str) -> str:
    """The text without any part of the URL that could be secret, however it is quoted."""
    for secret in _secrets_of(url):
        text = text.replace(secret, "****")
    return text


def _open(url: str, scheme: str) -> tuple[Plugin, list[str]] | None:
    with captured_log() as log:
        plugin = open_plugin(url, scheme)
    return None if plugin is None else (plugin, log.warnings)


def _check_options(url: str, scheme: str) -> None:
    known = _OPTIONS.get(_SERVICES.get(scheme, scheme))
    for option in _option_names(url):
        if (option in _NEVER) if known is None else (option not in known | _COMMON_OPTIONS):
            shown = option if option in _NEVER else "an option"
            reason = _REASONS.get(option, "it is unknown to Keeper, or reads files or other addresses")
            raise ChannelUrlRefused(f"the {scheme} URL may not set {shown}: {reason}; remove it", scheme)


def _option_names(url: str) -> list[str]:
    """As Apprise reads them: separated by & or ;, unquoted, in lower case, first of the URL's question marks."""
    _, _, query = url.partition("?")
    return [unquote(pair.partition("=")[0]).strip().lower() for pair in re.split(r"[&;?]", query) if pair]


def _check_recipient(plugin: Plugin, warnings: Sequence[str], scheme: str) -> None:
    recipients = _recipients(plugin)
    if warnings or (recipients is not None and not recipients):
        raise ChannelUrlRefused(f"the {scheme} URL names no valid recipient or holds an invalid part; name one recipient in it", scheme)
    if recipients is not None and len(recipients) > 1:
        raise ChannelUrlRefused(
            f"the {scheme} URL names {len(recipients)} recipients; add one channel for each, so that a repeat reaches nobody twice", scheme
        )


def _recipients(plugin: Plugin) -> Sequence[object] | None:
    """What Apprise would send to one by one; None for a service whose URL is the recipient."""
    for name in ("targets", "channels", "topics"):
        found = getattr(plugin, name, None)
        if isinstance(found, (list, tuple)):
            return found
    return None


def _hint(plugin: Plugin, scheme: str) -> str:
    """What is no secret: a mail's recipient in part, a chat's id, the end of a webhook's id, a server's or a chat channel's name."""
    service = _SERVICES.get(scheme, scheme)
    first = next(iter(_recipients(plugin) or ()), None)
    if service == "mail" and isinstance(first, tuple):
        name, _, domain = str(first[1]).rpartition("@")
        return f"{name[:1]}…@{domain}"
    if service == "tgram" and isinstance(first, tuple):
        return f"…/{first[0]}"
    if service == "discord" and len(str(plugin.webhook_id)) > 8:
        return f"…{str(plugin.webhook_id)[-4:]}"
    if service == "ntfy" and plugin.mode == "private":
        # The topic is the password of who may read it.
        return f"{plugin.host}/…"
    if service == "slack" and isinstance(first, str) and first.startswith("#"):
        return f"…/{first}"
    return ""


# Words of a mail URL that a reason needs to be understood.
_HARMLESS = frozenset({"starttls", "ssl", "insecure", "html", "text", "markdown", "smtp", "mail", "private", "cloud", "https", "http"})


def _secrets_of(url: str) -> list[str]:
    """Every part of the URL that could be secret, longest first, as written, unquoted and quoted."""
    scheme = scheme_of(url) or ""
    rest = url.partition("://")[2]
    path, _, query = rest.partition("?")
    values = [pair.partition("=")[2] for pair in re.split(r"[&;]", query)]
    pieces = [piece for part in (path, *values) for piece in re.split(r"[/:@,#]", part)]
    found = {piece for piece in pieces if len(piece) >= 4 and piece.lower() not in _HARMLESS}
    opened = _open(url, scheme) if scheme else None
    if opened is not None:
        plugin = opened[0]
        if _SERVICES.get(scheme) == "mail":
            found -= _public_parts(plugin)
        if _SERVICES.get(scheme, scheme) == "ntfy" and plugin.mode == "private":
            found.discard(plugin.host)
        if plugin.password:
            found.add(plugin.password)
    found.add(rest)
    forms = {form for piece in found for form in (piece, unquote(piece), quote(piece, safe=""), quote(unquote(piece), safe="")) if form}
    return sorted(forms, key=len, reverse=True)


def _public_parts(plugin: Plugin) -> set[str]:
    addresses = [plugin.host, plugin.smtp_host, plugin.from_addr[1], *(address for _, address in plugin.targets)]
    return {part for address in addresses if address for part in (address, *address.split("@"))}


def make_key() -> str:
    """A new key for `ChannelCipher`, as text."""
    return Fernet.generate_key().decode("ascii")


def load_or_create_key(path: Path) -> str:
    """The key in the file; made, readable by its owner only, when there is no such file.

    Processes that start at once agree on one key: the file appears complete or not at all, and only once.

    Raises:
        ChannelKeyWrong: the file holds no key.
    """
    try:
        text = path.read_text("ascii").strip()
    except FileNotFoundError:
        text = _create_key(path)
    except UnicodeDecodeError:
        text = ""
    _check_key(text, f"the file {path.name}")
    return text


def _create_key(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(make_key() + "\n")
            file.flush()
            os.fsync(file.fileno())
        # Of several processes one link succeeds; the others read what it has made.
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        else:
            _sync_folder(path.parent)
    finally:
        draft.unlink()
    return path.read_text("ascii").strip()


def _sync_folder(folder: Path) -> None:
    """A key that encrypts channels must outlive a power cut: its name, too, goes to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_key(key: str, where: str) -> None:
    try:
        Fernet(key)
    except ValueError:
        raise ChannelKeyWrong(f"{where} is not a channel key; a key is 32 bytes in URL-safe base64, make one with make_key") from None


class ChannelCipher:
    """Encrypts channel URLs: the first key encrypts, any key decrypts.

    To rotate: put the new key first, `rotate` every stored token, then drop the old key.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        """Takes keys of `make_key`, newest first.

        Raises:
            ChannelKeyWrong: no key, or one that is none.
        """
        if not keys:
            raise ChannelKeyWrong("no channel key is set; make one and set it before channels are stored")
        for position, key in enumerate(keys, start=1):
            _check_key(key, f"channel key {position} of {len(keys)}")
        self.fingerprints = tuple(fingerprint_of(key) for key in keys)
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def __repr__(self) -> str:
        return f"ChannelCipher(fingerprints={self.fingerprints!r})"

    @property
    def fingerprint(self) -> str:
        """Of the key that encrypts."""
        return self.fingerprints[0]

    def encrypt(self, url: str) -> str:
        """A token for the database; different each time."""
        return self._fernet.encrypt(url.encode()).decode("ascii")

    def decrypt(self, token: str) -> str:
        """The URL in a token.

        Raises:
            ChannelKeyWrong: none of the keys made this token.
        """
        try:
            return self._fernet.decrypt(token).decode()
        except (InvalidToken, ValueError):
            raise self._wrong() from None

    def rotate(self, token: str) -> str:
        """The same URL under the first key.

        Raises:
            ChannelKeyWrong: none of the keys made this token.
        """
        try:
            return self._fernet.rotate(token).decode("ascii")
        except (InvalidToken, ValueError):
            raise self._wrong() from None

    def _wrong(self) -> ChannelKeyWrong:
        known = ", ".join(self.fingerprints)
        return ChannelKeyWrong(
            f"no given channel key (fingerprints {known}) opens this channel; add the key it was stored with to the list"
        )


def fingerprint_of(key: str) -> str:
    """Sixteen hexadecimal digits that tell keys apart and give nothing of a key away."""
    return hashlib.sha256(b"keeper channel key\0" + key.encode("ascii")).hexdigest()[:16]
