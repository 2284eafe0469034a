"""HTTP only: routes, request parsing, answers, the error table."""
