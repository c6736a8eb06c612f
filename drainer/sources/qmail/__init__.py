"""The queue of qmail, from its documentation."""
