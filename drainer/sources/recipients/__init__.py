"""Lists of the primary's recipients: files, tables of Postfix, databases, commands.

They are read at the same edge as spools, by the same drivers, and decide nothing:
``policy.census`` does.
"""
