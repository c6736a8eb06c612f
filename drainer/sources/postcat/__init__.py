"""An export made by postqueue and postcat."""
