import unittest

from tally.entry import Entry
from tally.report import shares, totals

THIRDS = [Entry("2025-03-01", name, 500) for name in ("rent", "food", "fun")]


class Report(unittest.TestCase):
    def test_totals_are_by_name(self):
        self.assertEqual(list(totals(THIRDS)), ["food", "fun", "rent"])

    def test_shares_add_up(self):
        self.assertEqual(sum(shares(THIRDS).values()), 100)

    def test_no_spending_no_shares(self):
        self.assertEqual(shares([]), {})
