"""Prices over time."""

from fastapi import APIRouter

router = APIRouter(tags=["prices"])
