"""What you were told."""

from fastapi import APIRouter

router = APIRouter(tags=["alerts"])
