"""A reply and its stage to a verdict: tables of codes and rules of text. Pure."""
