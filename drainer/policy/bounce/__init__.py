"""Whether a sender may get a bounce: rules over evidence, and limits. Pure."""
