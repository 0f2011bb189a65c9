"""What Keepa allows, and who spends it."""

from fastapi import APIRouter

router = APIRouter(tags=["tokens"])
