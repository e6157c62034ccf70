"""Tests mirror the packages; peers/ compares with other tools, support/ is what tests share."""
