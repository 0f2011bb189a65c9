import logging
from collections.abc import Sequence

import pytest

from keeper.notify.channels import DEFAULT_SCHEMES, ChannelUrlRefused, check_channel_url, mask_secrets, mask_url

BOT = "123456789:AAbbCCddEEffGGhhIIjjKKllMMnnOOppQQr"
SECRET = "s3cr3tT0k3n"
HOOK = f"1234567890123456789/{SECRET}abcdefghijklmnopqrstuvwxyz0123456789"

ALLOWED = [
    f"mailto://bob:{SECRET}@example.org?mode=starttls",
    f"mailtos://bob:{SECRET}@example.org:465/reader@example.org?mode=ssl",
    f"mailtos://bob:{SECRET}@example.org?smtp=mail.internal.example.org&from=keeper@example.org&to=reader@example.org",
    "mailto://127.0.0.1:2525/reader@example.org?from=keeper@example.org",
    f"mailto://bob:{SECRET}@gmail.com",
    f"tgram://{BOT}/123456789",
    f"tgram://{BOT}/-1001234567890?silent=yes",
    f"discord://{HOOK}",
    "ntfy://price-alerts-of-bob",
    f"ntfys://bob:{SECRET}@ntfy.example.org/alerts?priority=high",
    "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/%23prices",
    f"discord://{HOOK}?cto=5&rto=20",
]


@pytest.mark.parametrize("url", ALLOWED)
def test_channel_of_a_default_scheme_is_allowed(url: str) -> None:
    assert check_channel_url(f" {url}\n") == url


@pytest.mark.parametrize("scheme", ["json", "jsons", "xml", "form", "http", "https", "apprise", "syslog", "dbus", "file", "nonsense"])
def test_scheme_off_the_list_is_refused_by_name(scheme: str) -> None:
    with pytest.raises(ChannelUrlRefused) as refused:
        check_channel_url(f"{scheme}://bob:{SECRET}@localhost/hook")
    text = str(refused.value)
    assert refused.value.scheme == scheme
    assert f"the scheme {scheme} is not allowed" in text
    assert all(allowed in text for allowed in DEFAULT_SCHEMES)
    assert SECRET not in text


def test_scheme_is_compared_without_case() -> None:
    with pytest.raises(ChannelUrlRefused, match="the scheme json is not allowed"):
        check_channel_url("JSON://localhost")
    assert check_channel_url(f"Discord://{HOOK}")


def test_settable_list_admits_another_scheme_and_drops_a_default_one() -> None:
    assert check_channel_url("json://localhost/hook", ["json"]) == "json://localhost/hook"
    with pytest.raises(ChannelUrlRefused, match="the scheme discord is not allowed; allowed schemes: json"):
        check_channel_url(f"discord://{HOOK}", ["json"])


@pytest.mark.parametrize(
    "url",
    [
        f"discord://{SECRET}",
        "tgram://1:/",
        f"tgram://{SECRET}",
        f"slack://{SECRET}",
        "mailto://",
        f"mailto://{SECRET}",
        f"mailto://bob:{SECRET}@example.org?mode=nonsense",
        "ntfy://",
    ],
)
def test_unreadable_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ChannelUrlRefused) as refused:
        check_channel_url(url)
    assert SECRET not in str(refused.value)
    assert SECRET not in repr(refused.value)


@pytest.mark.parametrize("url", ["", "   ", SECRET, f"{SECRET}@example.org", f"//{SECRET}"])
def test_text_that_is_no_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ChannelUrlRefused, match="a channel is a URL") as refused:
        check_channel_url(url)
    assert SECRET not in str(refused.value)


def test_bare_hash_is_refused_because_apprise_drops_what_follows() -> None:
    with pytest.raises(ChannelUrlRefused, match="# is %23"):
        check_channel_url("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#prices")


@pytest.mark.parametrize("joint", [" ", ",", ", ", ";", "\n", "\t"], ids=repr)
def test_second_url_cannot_ride_along(joint: str) -> None:
    with pytest.raises(ChannelUrlRefused, match="second URL"):
        check_channel_url(f"ntfy://topic{joint}json://localhost/{SECRET}")


@pytest.mark.parametrize(
    "url",
    [
        f"mailto://bob:{SECRET}@example.org/one@example.org/two@example.org",
        f"mailto://bob:{SECRET}@example.org?to=one@example.org,two@example.org",
        f"mailto://bob:{SECRET}@example.org/one@example.org?to=two@example.org",
        f"tgram://{BOT}/111/222",
        "ntfy://ntfy.example.org/one/two",
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/%23one/%23two",
    ],
)
def test_channel_has_one_recipient(url: str) -> None:
    with pytest.raises(ChannelUrlRefused, match="2 recipients; add one channel for each"):
        check_channel_url(url)


def test_telegram_without_a_chat_is_refused_because_apprise_would_guess_one() -> None:
    with pytest.raises(ChannelUrlRefused, match="names no valid recipient"):
        check_channel_url(f"tgram://{BOT}/")


def test_recipient_that_apprise_would_drop_is_refused() -> None:
    with pytest.raises(ChannelUrlRefused, match="no valid recipient"):
        check_channel_url(f"mailto://bob:{SECRET}@example.org/nobody")


@pytest.mark.parametrize(
    ("base", "option"),
    [
        (f"mailto://bob:{SECRET}@example.org", "cc=two@example.org"),
        (f"mailto://bob:{SECRET}@example.org", "BCC=two@example.org"),
        (f"mailto://bob:{SECRET}@example.org", "pgppub=/etc/passwd"),
        (f"mailto://bob:{SECRET}@example.org", "pgp=sign"),
        (f"mailto://bob:{SECRET}@example.org", "%2BBcc=two@example.org"),
        (f"mailto://bob:{SECRET}@example.org", "+Message-ID=x"),
        (f"mailto://bob:{SECRET}@example.org", "verify=no"),
        (f"discord://{HOOK}", "template=/etc/passwd"),
        (f"discord://{HOOK}", "tts=no;template=/etc/passwd"),
        (f"tgram://{BOT}/111", "template=http://localhost/"),
        (f"tgram://{BOT}/111", ":token=x"),
        ("ntfy://topic", "attach=http://localhost/secret"),
        ("ntfy://topic", "optional=yes"),
        ("ntfy://topic", "retry=5"),
        ("ntfy://topic", "redirect=yes"),
        ("ntfy://topic", "email=two@example.org"),
        ("ntfy://topic", "store=/tmp"),
    ],
)
def test_option_that_is_unsafe_or_unknown_is_refused(base: str, option: str) -> None:
    with pytest.raises(ChannelUrlRefused, match="may not set") as refused:
        check_channel_url(f"{base}?{option}")
    assert SECRET not in str(refused.value)
    assert "passwd" not in str(refused.value)


def test_unsafe_option_is_refused_for_an_added_scheme_as_well() -> None:
    with pytest.raises(ChannelUrlRefused, match="may not set verify: certificates are always checked"):
        check_channel_url("jsons://example.org/hook?verify=no", ["jsons"])


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"mailto://bob:{SECRET}@example.org/reader@example.net", "mailto://r…@example.net"),
        (f"mailtos://bob:{SECRET}@gmail.com", "mailtos://b…@gmail.com"),
        (f"tgram://{BOT}/111", "tgram://…/111"),
        (f"discord://{HOOK}", "discord://…6789"),
        ("ntfy://price-alerts-of-bob", "ntfy://…"),
        (f"ntfys://bob:{SECRET}@ntfy.example.org/alerts", "ntfys://ntfy.example.org/…"),
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/%23prices", "slack://…/#prices"),
        (f"json://{SECRET}@localhost/{SECRET}", "json://…"),
        (f"discord://{SECRET}", "discord://…"),
        (f"nonsense://{SECRET}", "nonsense://…"),
        (SECRET, "…"),
        ("", "…"),
    ],
)
def test_mask_shows_what_is_recognised_and_nothing_secret(url: str, shown: str) -> None:
    assert mask_url(url) == shown


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("mailto://bob:p%40ss%2Fw%3Ard@example.org", ["p%40ss%2Fw%3Ard", "p@ss/w:rd"]),
        ("mailto://bob:abc@example.org", ["abc"]),
        ("mailto://bob@example.org?pass=p%40ssword", ["p@ssword"]),
        (f"tgram://{BOT}/111", [BOT, BOT.partition(":")[2]]),
        (f"discord://{HOOK}", [HOOK.partition("/")[2], HOOK]),
        ("ntfy://my-topic", ["my-topic"]),
        (f"ntfys://{SECRET}@ntfy.example.org/alerts", [SECRET]),
        (f"json://{SECRET}@localhost", [SECRET]),
        (f"discord://{SECRET}", [SECRET]),
    ],
)
def test_secrets_are_masked_in_any_text(url: str, secrets: Sequence[str]) -> None:
    masked = mask_secrets(f"failed: {' / '.join(secrets)} {url}", url)
    assert not [secret for secret in secrets if secret in masked]
    assert masked.startswith("failed: ****")


def test_masked_mail_reason_still_names_server_and_recipient() -> None:
    text = "550 reader@example.net unknown at mail.example.org"
    assert mask_secrets(text, f"mailto://bob:{SECRET}@example.org/reader@example.net?smtp=mail.example.org") == text


def test_reading_a_url_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.NOTSET)
    for url in (*ALLOWED, f"discord://{SECRET}", f"tgram://{SECRET}", f"mailto://{SECRET}"):
        mask_url(url)
    assert caplog.text == ""


@pytest.mark.parametrize(
    "url",
    [f"mailto://bob:{SECRET}@example.org", f"mailtos://bob:{SECRET}@example.org?mode=insecure"],
    ids=["plain", "insecure"],
)
def test_a_login_without_tls_to_another_machine_is_refused(url: str) -> None:
    with pytest.raises(ChannelUrlRefused, match="unencrypted; write mailtos://") as caught:
        check_channel_url(url)
    assert SECRET not in str(caught.value)
