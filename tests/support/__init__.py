"""What tests share: real peers, a second opinion on images, and the search for leftovers.

None of it uses Tierce's own packages, so that a fault in Tierce can't hide here.
"""
