"""What Go takes for blanks."""

from __future__ import annotations

SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
"""What the language calls white space: Go's ``unicode.IsSpace``, narrower than ``str.isspace``."""

SPACE = r"[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
"""One of ``SPACES``, as a regular expression."""
