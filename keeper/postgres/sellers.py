"""Sellers' profiles: one for a user, who has the operator's default without."""

import json
from typing import Any

from sqlalchemy import Connection, text

from keeper.domain.seller import SellerProfile, read_seller, write_seller


def select_profile(connection: Connection, user_id: int) -> SellerProfile | None:
    """The user's own; None where the default counts.

    Raises:
        SellerProfileInvalid: what is stored is none, as after a change by hand; it names the field.
    """
    found: dict[str, Any] | None = connection.execute(
        text("SELECT profile FROM seller_profiles WHERE user_id = :user_id"), {"user_id": user_id}
    ).scalar_one_or_none()
    return None if found is None else read_seller(found)


def select_revision(connection: Connection, user_id: int) -> int:
    """Which state of the user's profile this is; it is another after each change. 0 where the default counts."""
    return int(
        connection.execute(text("SELECT revision FROM seller_profiles WHERE user_id = :user_id"), {"user_id": user_id}).scalar_one_or_none()
        or 0
    )


def upsert_profile(connection: Connection, user_id: int, profile: SellerProfile) -> bool:
    """Keep the user's own. Returns whether it is another than before."""
    kept = connection.execute(
        text(
            """
            INSERT INTO seller_profiles AS s (user_id, profile) VALUES (:user_id, CAST(:profile AS jsonb))
            ON CONFLICT (user_id) DO UPDATE SET profile = excluded.profile,
                revision = nextval('seller_profile_revisions'), updated_at = keeper_now()
            WHERE s.profile IS DISTINCT FROM excluded.profile
            RETURNING 1
            """
        ),
        {"user_id": user_id, "profile": json.dumps(write_seller(profile))},
    )
    return kept.one_or_none() is not None


def delete_profile(connection: Connection, user_id: int) -> bool:
    """The default counts again. Returns whether there was one."""
    return connection.execute(text("DELETE FROM seller_profiles WHERE user_id = :user_id"), {"user_id": user_id}).rowcount == 1
