"""Keeper watches Amazon prices through the Keepa API and tells people in time."""
