"""The queue of Postfix: stopped, copied or live."""
