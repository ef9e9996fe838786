import unittest

from tally.money import format_amount, parse_amount


class Amounts(unittest.TestCase):
    def test_whole_units_and_cents(self):
        self.assertEqual(parse_amount("12"), 1200)
        self.assertEqual(parse_amount(" 12.5"), 1250)

    def test_a_refund_below_one_unit(self):
        self.assertEqual(parse_amount("-0.50"), -50)

    def test_there_and_back(self):
        for text in ("0.05", "12.50", "640.00"):
            self.assertEqual(format_amount(parse_amount(text)), text)
