"""The layers around every route: limits, deadlines, preconditions, idempotency, errors, paging."""
