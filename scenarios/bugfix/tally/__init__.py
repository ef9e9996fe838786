"""Reads a ledger and says where the money went."""
