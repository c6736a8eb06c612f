"""From a reply and its stage to a verdict: tables of codes and text rules. Pure."""
