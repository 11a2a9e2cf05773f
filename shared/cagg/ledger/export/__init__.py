"""The log in forms that others read: tiles and bundles that prove it, lines and rows that use it."""
